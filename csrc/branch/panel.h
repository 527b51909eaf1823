// Up to 16 rows of a factor, as they are written.
#pragma once

#include <cstddef>
#include <cstdint>

#include "branch/axes.h"
#include "branch/branch_ops.h"
#include "branch/tile_layout.h"

namespace lora_mmap {

constexpr int64_t kPanelCols = 256;  // so that the rows stay in the first cache while they are packed

struct Panel {
  Extent n;  // within 16 rows that begin at a multiple of 16
  Extent k;
  const std::byte* rows[kTile];  // [n % 16]: k.size() elements of the branch's type; null: left as it is
  bool has_all_rows;             // 16, and none is null
};

// Makes panels, one at a time: where nothing has to be computed, their rows are the factor's own.
class PanelReader {
 public:
  PanelReader(const FactorWrite& write, const Axes& axes, const BranchOps& ops);
  PanelReader(const PanelReader&) = delete;
  PanelReader& operator=(const PanelReader&) = delete;

  // Rows `n` of one tile and columns `k`, at most kPanelCols. Valid until the next one.
  const Panel& read(const Extent& n, const Extent& k);

  // So far: elements that are not finite where the factor's are.
  int64_t overflowed() const { return overflowed_; }

 private:
  struct Bytes {
    const std::byte* begin;
    int64_t count;
  };

  const std::byte* read_row(int64_t at);
  void read_regular_rows();
  const std::byte* element(int64_t n, int64_t k) const;
  Bytes after(int64_t row) const;
  const std::byte* gathered(const std::byte* row);
  void convert(const std::byte* from, int64_t count, std::byte* to);
  int64_t count_overflowed(const std::byte* from, const std::byte* to, int64_t count) const;

  const FactorWrite& write_;
  const Axes& axes_;
  const int64_t factor_nbytes_;  // of an element
  const int64_t branch_nbytes_;
  const float scale_;
  const bool copies_;    // elements go as they are
  const bool in_a_row_;  // columns that follow each other do so in the factor
  const bool regular_;   // and rows are one stride apart
  const bool widens_;    // ScaledRow does not read the factor's type
  const ScaledRow scaled_row_;
  Panel panel_;
  int64_t overflowed_ = 0;
  alignas(64) std::byte values_[kTile * kPanelCols * sizeof(float)];  // the rows, of the branch's type
  alignas(64) std::byte gathered_[kPanelCols * sizeof(double)];       // one row, of the factor's type
  alignas(64) float widened_[kPanelCols];
};

}  // namespace lora_mmap
