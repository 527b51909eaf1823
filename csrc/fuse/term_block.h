// A block of a job with terms of any kind, computed in panels strip by strip.
#pragma once

#include <cstring>
#include <optional>
#include <vector>

#include "fuse/element_ops.h"
#include "fuse/packed.h"
#include "fuse/panels.h"
#include "fuse/whole_rows.h"

namespace lora_mmap {

// What a job's terms need while a block of them is computed.
struct TermNeeds {
  static constexpr int64_t kRanks = 64;  // of one sweep
  static constexpr int64_t kMostWholes = 8;

  int64_t low_rank = 0;    // of all factor pairs together
  int64_t products = 0;    // factor pairs of one term that are wanted by themselves
  int64_t wholes = 0;      // whole matrices of one term
  int64_t all_wholes = 0;  // of all terms
  bool sum;                // the accumulators of all terms
  bool base = false;       // one row of it at a time
  bool change = false;     // likewise

  // `norms`: for the base and the change of the only term, not for a sum.
  TermNeeds(const Job& job, bool norms);

  int64_t ranks_at_once() const { return std::min(low_rank, kRanks); }
  bool keeps_down() const { return low_rank <= kRanks; }
  bool keeps_wholes() const { return all_wholes <= kMostWholes; }
  int64_t whole_rows() const { return keeps_wholes() ? all_wholes : wholes; }

  // A block is computed in strips of its rows: short ones stay near, but each needs all of A.
  int64_t strip_rows(const TileOps& ops, int64_t rows) const {
    return keeps_down() ? std::min(ops.rows, rows) : rows;
  }
};

// Offsets into a worker's scratch for strips of `shape`.
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

// A block in memory, or a copy of it: each row contiguous.
struct Rows {
  std::byte* data;
  int64_t row_stride;  // in elements
};

class TermBlock {
 public:
  // `order`: the weight type whose order of columns the panels have. `base`: the block's pristine values, of
  // the job's type. All references outlive the object.
  TermBlock(const TileOps& ops, const ElementOps& elements, DType order, const Job& job, const Block& block,
            const TermNeeds& needs, const TermLayout& layout, Rows base, Workspace& workspace);

  // weight = round(base + the sum of all terms). True if a result is not finite where the base was.
  bool fuse(Rows weight);

  // use(m, base, change) for every row: what the job's only term, which has no gain, adds to 0.
  template <class Use>
  void for_each_change(Use use) {
    while (next_strip()) {
      Operands& operands = begin(0);
      for (int64_t m = 0; m < shape_.rows; ++m)
        use(strip_ + m, base_row(m), change_row(job_.terms[0], operands, m));
    }
  }

  // use(m, acc) for every row: the sum of all terms.
  template <class Use>
  void for_each_sum(Use use) {
    while (next_strip()) {
      std::byte* sum = scratch_ + layout_.sum;
      if (!sum_strip()) std::memset(sum, 0, shape_.nbytes());
      for (int64_t m = 0; m < shape_.rows; ++m) use(strip_ + m, shape_.row(sum, m));
    }
  }

  RowShape row_shape() const;

 private:
  // A matrix of a term: multiplied out for a strip, or read row by row.
  struct Operand {
    std::byte* product = nullptr;
    std::optional<WholeRows> whole;
  };

  struct Operands {
    Operand matrix;
    Operand times;
    Operand gain;
  };

  bool next_strip();
  bool fuse_strip(Rows weight);
  bool sum_strip();
  Operands& begin(size_t term);
  void prepare(Operand& operand, const Matrix& matrix, double scale);
  PanelRow row_of(Operand& operand, int64_t m);
  PanelRow base_row(int64_t m);
  PanelRow change_row(const Term& term, Operands& operands, int64_t m);
  void add_change(const Term& term, Operands& operands, PanelRow acc, int64_t m);
  void add_row(const Term& term, Operands& operands, int64_t m);

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
  PanelBlock shape_;  // of the strip
  const Rows base_;
  std::byte* scratch_;
  bool down_is_packed_;
  int64_t strip_ = -1;     // its first row in the block
  int64_t next_rank_ = 0;  // where the next factor pair's A stands among those kept
  int64_t n_products_ = 0;
  int64_t n_wholes_ = 0;
  std::vector<Operands> operands_;  // of each term
};

}  // namespace lora_mmap
