#include "fuse/packed.h"

#include <unistd.h>

#include <algorithm>

#include "fuse/copy.h"
#include "fuse/direct_fusion.h"
#include "fuse/factor.h"
#include "fuse/term_fusion.h"

namespace lora_mmap {
namespace {

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

int64_t compute_nbytes(const Job& job) {
  return job.dtype == DType::F64 ? 8 : 4;
}

// How many ranks are summed at a time: all of them, or even parts. With more than these the accumulators go
// to memory and back, which costs less than the columns and rows that A and B would leave room for.
int64_t rank_block(const Job& job) {
  const int64_t most = job.dtype == DType::F64 ? 112 : 256;  // the smallest block of either takes 81 KiB
  const int64_t rank = total_rank(job);
  const int64_t blocks = (rank + most - 1) / most;
  return blocks ? (rank + blocks - 1) / blocks : 0;
}

// Row stride of packed B, in elements: whole cache lines.
int64_t up_stride(const Job& job) {
  return round_up(std::max<int64_t>(rank_block(job), 1), 64 / compute_nbytes(job));
}

// What A and the accumulators may take: less than half of L2, to stay there while the weight streams by.
// Longer runs of columns suit the prefetchers.
int64_t resident_nbytes() {
  static const int64_t nbytes = [] {
    int64_t l2 = 0;
#if defined(_SC_LEVEL2_CACHE_SIZE)
    l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
    return std::clamp<int64_t>(l2 * 3 / 8, 128 << 10, 512 << 10);
  }();
  return nbytes;
}

// Where no row of the weight is contiguous, a block is fused in a contiguous copy.
bool is_staged(const Job& job) {
  return job.weight_col_stride != 1 || job.base_col_stride != 1;
}

// Offsets into a worker's scratch for a block of `rows` x `cols`.
struct Layout {
  size_t down = 0;  // A of one rank block, in panels
  size_t up;        // B * scale of one rank block
  size_t row;       // one row of a factor, gathered or converted
  size_t partial;   // accumulators, when there are several rank blocks
  size_t stage;     // the block itself, when it is staged
  size_t nbytes;

  Layout(const TileOps& ops, const Job& job, int64_t rows, int64_t cols) {
    const int64_t size = compute_nbytes(job);
    const int64_t rank = rank_block(job);
    const int64_t padded_cols = round_up(cols, ops.panel_nbytes / size);
    const int64_t padded_rows = round_up(rows, ops.rows);
    up = static_cast<size_t>(rank * padded_cols * size);
    row = up + static_cast<size_t>(padded_rows * up_stride(job) * size);
    partial = row + static_cast<size_t>(round_up(std::max(padded_cols, rank) * 8, 64));
    stage = partial + static_cast<size_t>(total_rank(job) > rank ? padded_rows * padded_cols * size : 0);
    nbytes = stage + static_cast<size_t>(is_staged(job) ? round_up(rows * cols * size, 64) : 0);
  }
};

// A block of a job on its way through the rank blocks.
class BlockFusion {
 public:
  BlockFusion(const TileOps& ops, const Job& job, const Block& block, Workspace& workspace)
      : ops_(ops),
        job_(job),
        block_(block),
        size_(compute_nbytes(job)),
        rank_(total_rank(job)),
        rank_block_(rank_block(job)),
        up_stride_(up_stride(job)),
        layout_(ops, job, block.rows, block.cols),
        workspace_(workspace),
        scratch_(workspace.reserve(layout_.nbytes)) {}

  bool run() {
    if (is_staged(job_)) return run_staged();
    const int64_t base = block_.row * job_.base_row_stride + block_.col;
    const int64_t weight = block_.row * job_.weight_row_stride + block_.col;
    return fuse(element_at(job_.base, job_.dtype, base), job_.base_row_stride,
                const_cast<std::byte*>(element_at(job_.weight, job_.dtype, weight)), job_.weight_row_stride);
  }

 private:
  bool run_staged() {
    const int64_t nbytes = dtype_bits(job_.dtype) / 8;
    const int64_t base = block_.row * job_.base_row_stride + block_.col * job_.base_col_stride;
    const int64_t weight = block_.row * job_.weight_row_stride + block_.col * job_.weight_col_stride;
    std::byte* stage = scratch_ + layout_.stage;
    copy_rect({stage, element_at(job_.base, job_.dtype, base), block_.rows, block_.cols, block_.cols, 1,
               job_.base_row_stride, job_.base_col_stride, nbytes});
    const bool overflow = fuse(stage, block_.cols, stage, block_.cols);
    copy_rect({const_cast<std::byte*>(element_at(job_.weight, job_.dtype, weight)), stage, block_.rows,
               block_.cols, job_.weight_row_stride, job_.weight_col_stride, block_.cols, 1, nbytes});
    return overflow;
  }

  bool fuse(const std::byte* base, int64_t base_stride, std::byte* weight, int64_t weight_stride) {
    bool overflow = false;
    int64_t begin = 0;
    do {
      const int64_t end = std::min(begin + rank_block_, rank_);
      pack(begin, end);
      overflow |= ops_.sweep(job_.dtype, {.up = scratch_ + layout_.up,
                                          .down = scratch_ + layout_.down,
                                          .up_stride = up_stride_,
                                          .rank = end - begin,
                                          .rows = block_.rows,
                                          .cols = block_.cols,
                                          .base = base,
                                          .weight = weight,
                                          .base_row_stride = base_stride,
                                          .weight_row_stride = weight_stride,
                                          .partial = scratch_ + layout_.partial,
                                          .first = begin == 0,
                                          .last = end == rank_});
      begin = end;
    } while (begin < rank_);
    return overflow;
  }

  // Ranks [begin, end) of all terms laid end to end. Blocks come in the order of their rows within a range of
  // columns, so A is often still there from the block before.
  void pack(int64_t begin, int64_t end) {
    const Workspace::Packed wanted{&job_, block_.col};
    const bool keep = rank_ <= rank_block_;
    const bool down_is_packed = keep && workspace_.packed == wanted;
    workspace_.packed = keep ? wanted : Workspace::Packed{};
    int64_t first = 0;
    for (const Term& term : job_.terms) {
      const int64_t from = std::max(begin - first, int64_t{0});
      const int64_t to = std::min(end - first, term.matrix.rank);
      if (from < to) {
        if (!down_is_packed) pack_down(term.matrix, from, to, first + from - begin, end - begin);
        pack_up(term.matrix, term.scale, from, to, first + from - begin);
      }
      first += term.matrix.rank;
    }
  }

  // Rows [from, to) of the term's A become rows `slot`... of every panel of `block_rank` rows.
  void pack_down(const Matrix& term, int64_t from, int64_t to, int64_t slot, int64_t block_rank) {
    const int32_t* map = term.col_map ? term.col_map + block_.col : nullptr;
    for (int64_t r = from; r < to; ++r, ++slot) {
      const int64_t first = r * term.down_row_stride + (map ? 0 : block_.col * term.down_col_stride);
      const std::byte* data = element_at(term.down, term.down_dtype, first);
      const FactorRow row = packable({term.down_dtype, data, term.down_col_stride, map}, block_.cols);
      ops_.pack_down(job_.dtype, row.dtype, row.data, block_.cols,
                     scratch_ + layout_.down + slot * ops_.panel_nbytes, block_rank * ops_.panel_nbytes);
    }
  }

  void pack_up(const Matrix& term, double scale, int64_t from, int64_t to, int64_t slot) {
    for (int64_t m = 0; m < block_.rows; ++m) {
      const int64_t up_row = term.row_map ? term.row_map[block_.row + m] : block_.row + m;
      const int64_t first = up_row * term.up_row_stride + from * term.up_col_stride;
      const std::byte* data = element_at(term.up, term.up_dtype, first);
      const FactorRow row = packable({term.up_dtype, data, term.up_col_stride}, to - from);
      ops_.pack_up(job_.dtype, row.dtype, row.data, to - from, scale,
                   scratch_ + layout_.up + (m * up_stride_ + slot) * size_);
    }
  }

  FactorRow packable(const FactorRow& row, int64_t count) {
    return packable_row(job_.dtype, row, count, scratch_ + layout_.row);
  }

  const TileOps& ops_;
  const Job& job_;
  const Block& block_;
  const int64_t size_;
  const int64_t rank_;
  const int64_t rank_block_;
  const int64_t up_stride_;
  const Layout layout_;
  Workspace& workspace_;
  std::byte* scratch_;
};

}  // namespace

Tiling PackedKernel::tiling(const Job& job, size_t scratch_limit) const {
  if (is_direct(job)) return direct_tiling(job);
  if (!all_low_rank(job)) return term_tiling(ops_, job, scratch_limit);
  constexpr int64_t kRows = 192;       // B of a rank block: at most 192 KiB
  constexpr int64_t kColumnStep = 64;  // whole cache lines of a 16-bit weight
  constexpr int64_t kMostCols = 4096;
  const int64_t size = compute_nbytes(job);
  const int64_t rank = std::max<int64_t>(rank_block(job), 1);
  const bool wide_blocks = !is_staged(job);
  // A small weight is cut finer, so that its last blocks do not leave workers without one.
  const int64_t eighth = std::max((job.rows + 7) / 8, 4 * ops_.rows);
  int64_t rows = round_up(std::min({kRows, eighth, job.rows}), ops_.rows);
  // A column of a block takes its part of A and, between rank blocks, its accumulators.
  const int64_t column_nbytes = (rank + (total_rank(job) > rank ? rows : 0)) * size;
  int64_t cols = std::min(resident_nbytes() / column_nbytes, wide_blocks ? kMostCols : 256);
  while (true) {
    // Even chunks: no sliver at the end.
    const int64_t chunks = (job.cols + cols - 1) / cols;
    const int64_t even = std::min(round_up((job.cols + chunks - 1) / chunks, kColumnStep), job.cols);
    const size_t nbytes = Layout(ops_, job, rows, even).nbytes;
    if (nbytes <= scratch_limit || (rows <= ops_.rows && cols <= kColumnStep)) return {rows, even, nbytes};
    const bool up_is_larger = rows > cols;
    if (rows > ops_.rows && (up_is_larger || cols <= kColumnStep))
      rows = round_up(rows / 2, ops_.rows);
    else
      cols = std::max(cols / 2, kColumnStep);
  }
}

bool PackedKernel::fuse(const Job& job, const Block& block, Workspace& workspace) const {
  if (is_direct(job)) return fuse_directly(elements_, job, block);
  if (!all_low_rank(job)) return fuse_terms(ops_, elements_, job, block, workspace);
  return BlockFusion(ops_, job, block, workspace).run();
}

Tiling PackedKernel::norm_tiling(const Gains& gains, size_t scratch_limit) const {
  return change_tiling(ops_, gains, scratch_limit);
}

void PackedKernel::sum_squares(const Gains& gains, const Block& block, const Tiling& tiling,
                               Workspace& workspace, double* sums) const {
  sum_changed_squares(ops_, elements_, gains, block, tiling, workspace, sums);
}

}  // namespace lora_mmap
