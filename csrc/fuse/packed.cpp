#include "fuse/packed.h"

#include <unistd.h>

#include <algorithm>

#include "fuse/copy.h"
#include "fuse/direct_fusion.h"
#include "fuse/factor.h"
#include "fuse/packed_block.h"
#include "fuse/term_fusion.h"

namespace lora_mmap {
namespace {

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

int64_t compute_nbytes(const Job& job) {
  return job.dtype == DType::F64 ? 8 : 4;
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

// What the block itself takes when it is staged, after the rest of its scratch.
size_t stage_nbytes(const Job& job, int64_t rows, int64_t cols) {
  return static_cast<size_t>(is_staged(job) ? round_up(rows * cols * compute_nbytes(job), 64) : 0);
}

bool fuse_staged(const Job& job, const Block& block, PackedBlock& packed, std::byte* stage) {
  const int64_t nbytes = dtype_bits(job.dtype) / 8;
  const int64_t base = block.row * job.base_row_stride + block.col * job.base_col_stride;
  const int64_t weight = block.row * job.weight_row_stride + block.col * job.weight_col_stride;
  copy_rect({stage, element_at(job.base, job.dtype, base), block.rows, block.cols, block.cols, 1,
             job.base_row_stride, job.base_col_stride, nbytes});
  const bool overflow = packed.fuse(stage, block.cols, stage, block.cols);
  copy_rect({const_cast<std::byte*>(element_at(job.weight, job.dtype, weight)), stage, block.rows, block.cols,
             job.weight_row_stride, job.weight_col_stride, block.cols, 1, nbytes});
  return overflow;
}

bool fuse_packed(const TileOps& ops, const Job& job, const Block& block, Workspace& workspace) {
  const PackedLayout layout(ops, job, block.rows, block.cols);
  std::byte* scratch = workspace.reserve(layout.nbytes + stage_nbytes(job, block.rows, block.cols));
  PackedBlock packed(ops, job, block, layout, workspace, scratch);
  if (is_staged(job)) return fuse_staged(job, block, packed, scratch + layout.nbytes);
  const int64_t base = block.row * job.base_row_stride + block.col;
  const int64_t weight = block.row * job.weight_row_stride + block.col;
  return packed.fuse(element_at(job.base, job.dtype, base), job.base_row_stride,
                     const_cast<std::byte*>(element_at(job.weight, job.dtype, weight)),
                     job.weight_row_stride);
}

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
    const size_t nbytes = PackedLayout(ops_, job, rows, even).nbytes + stage_nbytes(job, rows, even);
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
  return fuse_packed(ops_, job, block, workspace);
}

Tiling PackedKernel::norm_tiling(const Gains& gains, size_t scratch_limit) const {
  return change_tiling(ops_, gains, scratch_limit);
}

void PackedKernel::sum_squares(const Gains& gains, const Block& block, const Tiling& tiling,
                               Workspace& workspace, double* sums) const {
  sum_changed_squares(ops_, elements_, gains, block, tiling, workspace, sums);
}

}  // namespace lora_mmap
