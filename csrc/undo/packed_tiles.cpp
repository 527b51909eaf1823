#include "undo/packed_tiles.h"

#include <cstring>

#include "fuse/packed_block.h"
#include "fuse/term_block.h"
#include "undo/corrections.h"

namespace lora_mmap {
namespace {

// Terms of any kind on a tile that stands contiguous at `x`.
class TileTerms {
 public:
  TileTerms(const TileOps& ops, const ElementOps& elements, const Job& job, const Block& tile, const void* x,
            Workspace& workspace)
      : needs_(job, false),
        layout_(needs_, panel_block(ops, job, needs_.strip_rows(ops, tile.rows), tile.cols), 0),
        block_(ops, elements, job.dtype, job, tile, needs_, layout_,
               {static_cast<std::byte*>(const_cast<void*>(x)), tile.cols}, workspace) {}

  TermBlock& block() { return block_; }

 private:
  const TermNeeds needs_;
  const TermLayout layout_;
  TermBlock block_;
};

size_t term_nbytes(const TileOps& ops, const Job& job, const Block& tile) {
  const TermNeeds needs(job, false);
  return TermLayout(needs, panel_block(ops, job, needs.strip_rows(ops, tile.rows), tile.cols), 0).nbytes;
}

// Numbers from `count` on to the end of the block.
void clear_rest(DType dtype, int64_t count, void* numbers) {
  const size_t nbytes = dtype_bits(dtype) / 8;
  const int64_t rest = (kCorrectionBlock - count % kCorrectionBlock) % kCorrectionBlock;
  std::memset(static_cast<std::byte*>(numbers) + static_cast<size_t>(count) * nbytes, 0,
              static_cast<size_t>(rest) * nbytes);
}

}  // namespace

size_t PackedTiles::scratch_nbytes(const Job& job, const Block& tile) const {
  if (!all_low_rank(job)) return term_nbytes(ops_, job, tile);
  return PackedLayout(ops_, job, tile.rows, tile.cols, true).nbytes;
}

template <class Use>
void PackedTiles::for_each_sum(const Job& job, const Block& tile, const void* x, const Ahead& ahead,
                               Workspace& workspace, Use use) const {
  if (!all_low_rank(job))
    return TileTerms(ops_, elements_, job, tile, x, workspace)
        .block()
        .for_each_sum([&](int64_t m, PanelRow acc) { use(m, 0, tile.cols, acc); });
  const PackedLayout layout(ops_, job, tile.rows, tile.cols, true);
  PackedBlock packed(ops_, job, tile, layout, workspace, workspace.reserve(layout.nbytes));
  packed.fetch(ahead.data, ahead.row_stride);
  packed.for_each_sum(use);
}

bool PackedTiles::fuse(const Job& job, const Block& tile, const void* x, void* fused, const Ahead& ahead,
                       Workspace& workspace) const {
  if (!all_low_rank(job))
    return TileTerms(ops_, elements_, job, tile, x, workspace)
        .block()
        .fuse({static_cast<std::byte*>(fused), tile.cols});
  const PackedLayout layout(ops_, job, tile.rows, tile.cols);
  PackedBlock packed(ops_, job, tile, layout, workspace, workspace.reserve(layout.nbytes));
  packed.fetch(ahead.data, ahead.row_stride);
  return packed.fuse(x, tile.cols, fused, tile.cols);
}

bool PackedTiles::fuse(const Job& job, const Block& tile, const void* x, const void* pristine, void* fused,
                       const Corrections& corrections, const Ahead& ahead, Workspace& workspace) const {
  const int64_t nbytes = dtype_bits(job.dtype) / 8;
  bool overflow = false;
  for_each_sum(job, tile, x, ahead, workspace, [&](int64_t m, int64_t col, int64_t cols, PanelRow acc) {
    const int64_t at = (m * tile.cols + col) * nbytes;
    overflow |= rows_.record_row(
        job.dtype, acc,
        {cols, static_cast<const std::byte*>(x) + at, static_cast<const std::byte*>(pristine) + at,
         static_cast<std::byte*>(fused) + at, static_cast<std::byte*>(corrections.numbers) + at});
  });
  const int64_t count = tile.rows * tile.cols;
  clear_rest(job.dtype, count, corrections.numbers);
  const int64_t blocks = (count + kCorrectionBlock - 1) / kCorrectionBlock;
  rows_.mark_nonzero(job.dtype, corrections.numbers, blocks * kCorrectionBlock, corrections.nonzero);
  return overflow;
}

// Low-rank sums come out negative with negative scales, but for the sign of a zero, which is dropped.
void PackedTiles::undo(const Job& job, const Block& tile, void* values, const Ahead& ahead,
                       Workspace& workspace) const {
  if (all_low_rank(job)) {
    const PackedLayout layout(ops_, job, tile.rows, tile.cols);
    PackedBlock packed(ops_, job, tile, layout, workspace, workspace.reserve(layout.nbytes), -1);
    packed.fetch(ahead.data, ahead.row_stride);
    packed.fuse(values, tile.cols, values, tile.cols);
    return rows_.drop_minus_zeros(job.dtype, values, tile.rows * tile.cols);
  }
  const int64_t nbytes = dtype_bits(job.dtype) / 8;
  for_each_sum(job, tile, values, ahead, workspace, [&](int64_t m, int64_t col, int64_t cols, PanelRow acc) {
    rows_.undo_row(job.dtype, acc, cols, static_cast<std::byte*>(values) + (m * tile.cols + col) * nbytes);
  });
}

}  // namespace lora_mmap
