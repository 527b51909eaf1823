// A block of a job whose terms are all low-rank: factors packed, then swept.
#pragma once

#include "fuse/factor.h"
#include "fuse/packed.h"
#include "fuse/panels.h"

namespace lora_mmap {

// How many ranks are summed at a time: all of them, or even parts. With more than these the accumulators go
// to memory and back, which costs less than the columns and rows that A and B would leave room for.
int64_t rank_block(const Job& job);

// Offsets into a worker's scratch for a block of `rows` x `cols`.
struct PackedLayout {
  size_t down = 0;  // A of one rank block, in panels
  size_t up;        // B * scale of one rank block
  size_t row;       // one row of a factor, gathered or converted
  size_t partial;   // accumulators between rank blocks, or of a part of the block where sums are wanted
  size_t nbytes;

  PackedLayout(const TileOps& ops, const Job& job, int64_t rows, int64_t cols, bool keeps_sums = false);
};

class PackedBlock {
 public:
  // `scratch` is the workspace's, with `layout` from its beginning. All references outlive the object.
  PackedBlock(const TileOps& ops, const Job& job, const Block& block, const PackedLayout& layout,
              Workspace& workspace, std::byte* scratch);

  // weight = round(base + acc), strides of rows in elements. True if a result is not finite where the base
  // is.
  bool fuse(const void* base, int64_t base_stride, void* weight, int64_t weight_stride);

  // The same with another end: last(sweep) is the sweep of the last rank block.
  template <class Last>
  bool sweep(const void* base, int64_t base_stride, void* weight, int64_t weight_stride, Last last) {
    bool overflow = false;
    for_each_rank_block([&](int64_t begin, int64_t end) {
      const Sweep sweep = sweep_of(begin, end, base, base_stride, weight, weight_stride);
      overflow |= sweep.last ? last(sweep) : ops_.sweep(job_.dtype, sweep);
    });
    return overflow;
  }

  // use(m, col, cols, acc) for all rows and, in turn, ranges of columns that begin with a panel. Needs a
  // layout that keeps sums.
  template <class Use>
  void for_each_sum(Use use) {
    begin_sums();
    for (Part part{}; next(part);) {
      const PanelBlock shape = sum(part);
      for (int64_t m = 0; m < part.rows; ++m)
        use(part.row + m, part.col, part.cols, shape.row(sums_of(part), m));
    }
  }

  // Fetches the block at `data` meanwhile; its elements are those of the weight, its columns contiguous.
  void fetch(const void* data, int64_t row_stride) {
    ahead_ = data;
    ahead_row_stride_ = row_stride;
  }

 private:
  // Calls use(begin, end) for the rank blocks, packed.
  template <class Use>
  void for_each_rank_block(Use use) {
    int64_t begin = 0;
    do {
      const int64_t end = begin + rank_block_ < rank_ ? begin + rank_block_ : rank_;
      pack(begin, end);
      use(begin, end);
      begin = end;
    } while (begin < rank_);
  }
  Sweep sweep_of(int64_t begin, int64_t end, const void* base, int64_t base_stride, void* weight,
                 int64_t weight_stride) const;

  // A group of rows, or one of those that are no full group, and some of their columns.
  struct Part {
    int64_t row = 0;
    int64_t rows = 0;
    int64_t col = 0;
    int64_t cols = 0;
  };
  bool next(Part& part) const;
  void begin_sums();
  PanelBlock sum(const Part& part);
  void sweep_part(const Part& part, int64_t ranks, bool first);
  std::byte* sums_of(const Part& part) const;
  void pack(int64_t begin, int64_t end);
  void pack_down(const Matrix& term, int64_t from, int64_t to, int64_t slot, int64_t block_rank);
  void pack_up(const Matrix& term, double scale, int64_t from, int64_t to, int64_t slot);
  FactorRow packable(const FactorRow& row, int64_t count);

  const TileOps& ops_;
  const Job& job_;
  const Block& block_;
  const int64_t size_;
  const int64_t rank_;
  const int64_t rank_block_;
  const int64_t up_stride_;
  const PackedLayout& layout_;
  Workspace& workspace_;
  std::byte* scratch_;
  const void* ahead_ = nullptr;
  int64_t ahead_row_stride_ = 0;
};

}  // namespace lora_mmap
