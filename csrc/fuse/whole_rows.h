// The rows of a whole matrix as panels, one at a time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "fuse/factor.h"
#include "fuse/packed.h"
#include "fuse/panels.h"

namespace lora_mmap {

// Consecutive entries of a map: `count` indices from `from` upwards, or -count times the same.
struct MapRun {
  int32_t from;
  int32_t count;
};

// A row that serves several rows in a row is packed once. Reads columns through their map run by run where it
// has runs, as a Kronecker product's has.
class WholeRows {
 public:
  // What one needs for itself, and what those of a worker share, for blocks of up to `shape`'s columns.
  static size_t scratch_nbytes(const PanelBlock& shape);
  static size_t copy_nbytes(const PanelBlock& shape);

  // Columns in the order of the panels of `order` weights. `scratch` and `copy` are aligned to 64 bytes.
  WholeRows(const TileOps& ops, DType order, const PanelBlock& shape, const Matrix& matrix,
            const Block& block, std::byte* scratch, std::byte* copy);

  // Row m of the block; until the next call.
  PanelRow row(int64_t m);

 private:
  void find_runs();
  int64_t row_for(int64_t m) const;
  const std::byte* element(int64_t row, int64_t col) const;
  PanelRow repeated(const std::byte* value);
  void prefetch_after(int64_t m) const;
  FactorRow contiguous(const FactorRow& row);

  const TileOps& ops_;
  const DType order_;
  const PanelBlock& shape_;
  const Matrix& matrix_;
  const Block& block_;
  const int32_t* map_;  // of the block's columns
  std::byte* packed_;
  MapRun* runs_;
  std::byte* copy_;
  int64_t n_runs_ = 0;  // 0: not read by runs
  int64_t last_ = -1;   // the row of the matrix that is packed
};

}  // namespace lora_mmap
