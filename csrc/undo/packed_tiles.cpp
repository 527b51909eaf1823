#include "undo/packed_tiles.h"

#include <cstring>

#include "fuse/packed_block.h"
#include "fuse/term_block.h"
#include "undo/corrections.h"

namespace lora_mmap {
namespace {

// Terms of any kind on a tile that stands at `x`.
class TileTerms {
 public:
  TileTerms(const TileOps& ops, const ElementOps& elements, const Job& job, const Block& tile, TileRows x,
            Workspace& workspace)
      : needs_(job, false),
        layout_(needs_, panel_block(ops, job, needs_.strip_rows(ops, tile.rows), tile.cols), 0),
        block_(ops, elements, job.dtype, job, tile, needs_, layout_, {x.data, x.stride}, workspace) {}

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
void clear_rest(DType dtype, int64_t count, void* steps) {
  const size_t nbytes = dtype_bits(dtype) / 8;
  const int64_t rest = (kCorrectionBlock - count % kCorrectionBlock) % kCorrectionBlock;
  std::memset(static_cast<std::byte*>(steps) + static_cast<size_t>(count) * nbytes, 0,
              static_cast<size_t>(rest) * nbytes);
}

}  // namespace

size_t PackedTiles::scratch_nbytes(const Job& job, const Block& tile) const {
  if (!all_low_rank(job)) return term_nbytes(ops_, job, tile);
  return PackedLayout(ops_, job, tile.rows, tile.cols, !rows_.record_sweep).nbytes;
}

template <class Use>
void PackedTiles::for_each_sum(const Job& job, const Block& tile, TileRows x, TileRows ahead,
                               Workspace& workspace, Use use) const {
  if (!all_low_rank(job))
    return TileTerms(ops_, elements_, job, tile, x, workspace)
        .block()
        .for_each_sum([&](int64_t m, PanelRow acc) { use(m, 0, tile.cols, acc); });
  const PackedLayout layout(ops_, job, tile.rows, tile.cols, true);
  PackedBlock packed(ops_, job, tile, layout, workspace, workspace.reserve(layout.nbytes));
  packed.fetch(ahead.data, ahead.stride);
  packed.for_each_sum(use);
}

bool PackedTiles::fuse(const Job& job, const Block& tile, TileRows x, TileRows fused, TileRows ahead,
                       Workspace& workspace) const {
  if (!all_low_rank(job))
    return TileTerms(ops_, elements_, job, tile, x, workspace).block().fuse({fused.data, fused.stride});
  const PackedLayout layout(ops_, job, tile.rows, tile.cols);
  PackedBlock packed(ops_, job, tile, layout, workspace, workspace.reserve(layout.nbytes));
  packed.fetch(ahead.data, ahead.stride);
  return packed.fuse(x.data, x.stride, fused.data, fused.stride);
}

bool PackedTiles::record_at_once(const Job& job, const Block& tile, TileRows x, TileRows pristine,
                                 TileRows fused, TileRows steps, TileRows ahead, Workspace& workspace) const {
  const PackedLayout layout(ops_, job, tile.rows, tile.cols);
  PackedBlock packed(ops_, job, tile, layout, workspace, workspace.reserve(layout.nbytes));
  packed.fetch(ahead.data, ahead.stride);
  return packed.sweep(x.data, x.stride, fused.data, fused.stride, [&](const Sweep& sweep) {
    return rows_.record_sweep(job.dtype, {sweep, pristine.data, steps.data, pristine.stride, steps.stride});
  });
}

bool PackedTiles::record_by_rows(const Job& job, const Block& tile, TileRows x, TileRows pristine,
                                 TileRows fused, TileRows steps, TileRows ahead, Workspace& workspace) const {
  const int64_t nbytes = dtype_bits(job.dtype) / 8;
  bool overflow = false;
  for_each_sum(job, tile, x, ahead, workspace, [&](int64_t m, int64_t col, int64_t cols, PanelRow acc) {
    overflow |= rows_.record_row(job.dtype, acc,
                                 {cols, x.at(m, col, nbytes), pristine.at(m, col, nbytes),
                                  fused.at(m, col, nbytes), steps.at(m, col, nbytes)});
  });
  return overflow;
}

bool PackedTiles::record(const Job& job, const Block& tile, TileRows x, TileRows pristine, TileRows fused,
                         const Corrections& corrections, TileRows ahead, Workspace& workspace) const {
  const TileRows steps{static_cast<std::byte*>(corrections.steps), tile.cols};
  const bool overflow = rows_.record_sweep && all_low_rank(job)
                            ? record_at_once(job, tile, x, pristine, fused, steps, ahead, workspace)
                            : record_by_rows(job, tile, x, pristine, fused, steps, ahead, workspace);
  const int64_t count = tile.rows * tile.cols;
  clear_rest(job.dtype, count, corrections.steps);
  const int64_t blocks = (count + kCorrectionBlock - 1) / kCorrectionBlock;
  rows_.mark_nonzero(job.dtype, corrections.steps, blocks * kCorrectionBlock, corrections.nonzero);
  return overflow;
}

void PackedTiles::undo(const Job& job, const Block& tile, TileRows fused, TileRows undone, TileRows ahead,
                       Workspace& workspace) const {
  const int64_t nbytes = dtype_bits(job.dtype) / 8;
  if (!all_low_rank(job))
    return for_each_sum(
        job, tile, fused, ahead, workspace, [&](int64_t m, int64_t col, int64_t cols, PanelRow acc) {
          rows_.undo_row(job.dtype, acc, cols, fused.at(m, col, nbytes), undone.at(m, col, nbytes));
        });
  const PackedLayout layout(ops_, job, tile.rows, tile.cols);
  PackedBlock packed(ops_, job, tile, layout, workspace, workspace.reserve(layout.nbytes));
  packed.fetch(ahead.data, ahead.stride);
  packed.sweep(fused.data, fused.stride, undone.data, undone.stride,
               [&](const Sweep& sweep) { return rows_.undo_sweep(job.dtype, sweep); });
}

}  // namespace lora_mmap
