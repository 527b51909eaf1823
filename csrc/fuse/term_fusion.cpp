#include "fuse/term_fusion.h"

#include <algorithm>

#include "fuse/copy.h"
#include "fuse/factor.h"
#include "fuse/term_block.h"

namespace lora_mmap {
namespace {

constexpr int64_t kStripNbytes =
    96 << 10;  // of a strip: L1 or not far from it, wide enough for B to be packed rarely
constexpr int64_t kResidentNbytes = 384 << 10;  // of L2, for all of a block
constexpr int64_t kRows = 96;                   // A is read that often: packing it costs little
constexpr int64_t kColumnStep = 64;             // whole cache lines of a 16-bit weight
constexpr int64_t kMostCols = 2048;
constexpr int64_t kMostStagedCols = 256;

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

int64_t parts(int64_t size, int64_t step) {
  return (size + step - 1) / step;
}

// What a block is staged in, if its rows are not contiguous.
size_t stage_nbytes(const Job& job, bool writes, int64_t rows, int64_t cols) {
  const bool staged = job.base_col_stride != 1 || (writes && job.weight_col_stride != 1);
  return staged ? static_cast<size_t>(rows * cols * (dtype_bits(job.dtype) / 8)) : 0;
}

// The largest blocks of at most `most_cols` columns that suit the caches and the limit.
Tiling largest(const TileOps& ops, const Job& job, bool writes, int64_t most_cols, size_t limit) {
  const TermNeeds needs(job, !writes);
  const auto nbytes_of = [&](int64_t rows, int64_t cols) {
    const PanelBlock strip = panel_block(ops, job, needs.strip_rows(ops, rows), cols);
    return TermLayout(needs, strip, stage_nbytes(job, writes, rows, cols)).nbytes;
  };
  const auto fits = [&](int64_t rows, int64_t cols) {
    const PanelBlock strip = panel_block(ops, job, std::min(ops.rows, rows), cols);
    const auto strip_nbytes = static_cast<int64_t>(strip.nbytes()) * (needs.sum + needs.products);
    return strip_nbytes <= kStripNbytes && nbytes_of(rows, cols) <= std::min<size_t>(limit, kResidentNbytes);
  };
  int64_t rows = std::min(round_up(kRows, ops.rows), round_up(job.rows, ops.rows));
  int64_t cols = std::min(most_cols, round_up(job.cols, kColumnStep));
  while (cols > kColumnStep && !fits(rows, cols))
    cols = round_up(cols - cols / 4 - kColumnStep / 2, kColumnStep);
  while (rows > ops.rows && nbytes_of(rows, cols) > limit) rows = round_up(rows / 2, ops.rows);
  const int64_t even = round_up(parts(job.cols, parts(job.cols, cols)), kColumnStep);  // no sliver at the end
  return {rows, even, nbytes_of(rows, even)};
}

// The block's base as contiguous rows: in place, or staged.
Rows base_rows(const Job& job, const Block& block, bool staged, std::byte* stage) {
  const int64_t nbytes = dtype_bits(job.dtype) / 8;
  const int64_t first = block.row * job.base_row_stride + block.col * job.base_col_stride;
  const std::byte* base = element_at(job.base, job.dtype, first);
  if (!staged) return {const_cast<std::byte*>(base), job.base_row_stride};
  copy_rect(
      {stage, base, block.rows, block.cols, block.cols, 1, job.base_row_stride, job.base_col_stride, nbytes});
  return {stage, block.cols};
}

}  // namespace

Tiling term_tiling(const TileOps& ops, const Job& job, size_t scratch_limit) {
  const bool staged = stage_nbytes(job, true, 1, 1) > 0;
  return largest(ops, job, true, staged ? kMostStagedCols : kMostCols, scratch_limit);
}

bool fuse_terms(const TileOps& ops, const ElementOps& elements, const Job& job, const Block& block,
                Workspace& workspace) {
  const TermNeeds needs(job, false);
  const PanelBlock strip = panel_block(ops, job, needs.strip_rows(ops, block.rows), block.cols);
  const size_t staged = stage_nbytes(job, true, block.rows, block.cols);
  const TermLayout layout(needs, strip, staged);
  std::byte* stage = workspace.reserve(layout.nbytes) + layout.stage;
  const Rows base = base_rows(job, block, staged > 0, stage);
  TermBlock terms(ops, elements, job.dtype, job, block, needs, layout, base, workspace);

  const int64_t first = block.row * job.weight_row_stride + block.col * job.weight_col_stride;
  auto* weight = const_cast<std::byte*>(element_at(job.weight, job.dtype, first));
  if (!staged) return terms.fuse({weight, job.weight_row_stride});
  const bool overflow = terms.fuse(base);
  copy_rect({weight, stage, block.rows, block.cols, job.weight_row_stride, job.weight_col_stride, block.cols,
             1, dtype_bits(job.dtype) / 8});
  return overflow;
}

Tiling change_tiling(const TileOps& ops, const Gains& gains, size_t scratch_limit) {
  return largest(ops, gains.job, false, kMostNorms, scratch_limit);
}

namespace {

// One tile of a job's norms, added to what the tiles before it gave.
class TileSquares {
 public:
  TileSquares(const TileOps& ops, const ElementOps& elements, const Gains& gains, Workspace& workspace)
      : ops_(ops), elements_(elements), gains_(gains), needs_(gains.job, true), workspace_(workspace) {}

  // `sums`: of the columns, or kNormLanes for each row.
  void add(const Block& tile, double* sums) {
    const Job& job = gains_.job;
    const PanelBlock shape = panel_block(ops_, job, needs_.strip_rows(ops_, tile.rows), tile.cols);
    const size_t staged = stage_nbytes(job, false, tile.rows, tile.cols);
    const TermLayout layout(needs_, shape, staged);
    std::byte* stage = workspace_.reserve(layout.nbytes) + layout.stage;
    const Rows base = base_rows(job, tile, staged > 0, stage);
    // Columns in their own order: lanes count them.
    const DType order = job.dtype == DType::F64 ? DType::F64 : DType::F32;
    TermBlock terms(ops_, elements_, order, job, tile, needs_, layout, base, workspace_);
    const RowShape row = terms.row_shape();
    terms.for_each_change([&](int64_t m, PanelRow old, PanelRow change) {
      if (gains_.by_columns)
        elements_.sum_columns(row, old, change, sums);
      else
        elements_.sum_lanes(row, old, change, sums + m * kNormLanes);
    });
  }

 private:
  const TileOps& ops_;
  const ElementOps& elements_;
  const Gains& gains_;
  const TermNeeds needs_;
  Workspace& workspace_;
};

}  // namespace

void sum_changed_squares(const TileOps& ops, const ElementOps& elements, const Gains& gains,
                         const Block& block, const Tiling& tiling, Workspace& workspace, double* sums) {
  TileSquares squares(ops, elements, gains, workspace);
  if (gains.by_columns) {
    std::fill_n(sums, block.cols, 0.0);
    for (int64_t row = 0; row < block.rows; row += tiling.rows)
      squares.add({row, block.col, std::min(tiling.rows, block.rows - row), block.cols}, sums);
    return;
  }
  double lanes[kMostNorms * kNormLanes];
  std::fill_n(lanes, block.rows * kNormLanes, 0.0);
  for (int64_t col = 0; col < block.cols; col += tiling.cols)
    squares.add({block.row, col, block.rows, std::min(tiling.cols, block.cols - col)}, lanes);
  for (int64_t m = 0; m < block.rows; ++m) {
    sums[m] = 0;
    for (int64_t lane = 0; lane < kNormLanes; ++lane) sums[m] += lanes[m * kNormLanes + lane];
  }
}

}  // namespace lora_mmap
