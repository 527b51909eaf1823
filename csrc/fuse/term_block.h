// A block of a job with terms of any kind, in panels: what TermKernel computes its results from.
#pragma once

#include <optional>

#include "fuse/element_ops.h"
#include "fuse/packed.h"
#include "fuse/panels.h"
#include "fuse/whole_rows.h"

namespace lora_mmap {

// What a job's terms need while a block of them is computed.
struct TermNeeds {
  static constexpr int64_t kRanks = 64;  // of one sweep

  int64_t low_rank = 0;  // of all factor pairs together
  int64_t products = 0;  // factor pairs of one term that are wanted by themselves
  int64_t wholes = 0;    // whole matrices of one term
  bool sum;              // the accumulators of all terms
  bool base = false;     // one row of it at a time
  bool change = false;   // likewise

  // `norms`: for the base and the change of the only term, not for a sum.
  TermNeeds(const Job& job, bool norms);

  int64_t ranks_at_once() const { return std::min(low_rank, kRanks); }
  bool keeps_down() const { return low_rank <= kRanks; }
};

// Offsets into a worker's scratch for a block of `rows` x `cols`.
struct TermLayout {
  size_t down = 0;  // A: of all factor pairs where keeps_down, else of one sweep
  size_t up;        // B * scale of one sweep
  size_t sum;       // accumulators
  size_t products;  // factor pairs multiplied out
  size_t wholes;    // one row each
  size_t base;      // one row
  size_t change;    // one row
  size_t copy;      // a row of a factor, gathered and converted
  size_t stage;     // the block itself, where its rows are not contiguous
  size_t nbytes;

  TermLayout(const TermNeeds& needs, const PanelBlock& shape, size_t stage_nbytes);
};

PanelBlock panel_block(const TileOps& ops, const Job& job, int64_t rows, int64_t cols);

// The block's columns in memory, or in a copy of them in which rows are contiguous.
struct Rows {
  std::byte* data;
  int64_t row_stride;  // in elements
};

class TermBlock {
 public:
  // `order`: the weight type whose order of columns the panels have. `base`: the block's pristine values, of
  // the job's type. All references outlive the object.
  TermBlock(const TileOps& ops, const ElementOps& elements, DType order, const Job& job, const Block& block,
            const TermNeeds& needs, const TermLayout& layout, const PanelBlock& shape, Rows base,
            Workspace& workspace);

  // weight = round(base + the sum of all terms). True if a result is not finite where the base was.
  bool fuse(Rows weight);

  // use(m, base, change) for every row: what the job's only term, which has no gain, adds to 0.
  template <class Use>
  void for_each_change(Use use) {
    begin(job_.terms[0]);
    for (int64_t m = 0; m < shape_.rows; ++m) use(m, base_row(m), change_row(job_.terms[0], m));
  }

  RowShape row_shape() const;

 private:
  // A matrix of the term at hand: multiplied out, or read row by row.
  struct Operand {
    std::byte* product = nullptr;
    std::optional<WholeRows> whole;
  };

  void begin(const Term& term);
  void prepare(Operand& operand, const Matrix& matrix, double scale);
  PanelRow row_of(Operand& operand, int64_t m);
  PanelRow base_row(int64_t m);
  PanelRow change_row(const Term& term, int64_t m);
  void add_change(const Term& term, PanelRow acc, int64_t m);
  void add_row(const Term& term, int64_t m);

  void multiply(const Matrix& matrix, double scale, std::byte* panels, bool from_zero);
  void pack_down(const Matrix& matrix, int64_t begin, int64_t end, std::byte* to);
  void pack_up(const Matrix& matrix, int64_t begin, int64_t end, double scale);
  bool sweep(Sweep sweep);

  const TileOps& ops_;
  const ElementOps& elements_;
  const DType order_;
  const Job& job_;
  const Block& block_;
  const TermNeeds& needs_;
  const TermLayout& layout_;
  const PanelBlock& shape_;
  const Rows base_;
  std::byte* scratch_;
  bool down_is_packed_;
  int64_t next_rank_ = 0;  // where the next factor pair's A stands among those kept
  int64_t n_products_ = 0;
  int64_t n_wholes_ = 0;
  Operand matrix_;
  Operand times_;
  Operand gain_;
};

}  // namespace lora_mmap
