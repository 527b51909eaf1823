// The fast way: sums in panels, as PackedKernel makes them, and rows of a tile against them in registers.
#pragma once

#include "fuse/element_ops.h"
#include "fuse/packed.h"
#include "undo/row_ops.h"
#include "undo/tile_kernel.h"

namespace lora_mmap {

class PackedTiles final : public TileKernel {
 public:
  // All of one instruction set; they outlive the kernel.
  PackedTiles(const TileOps& ops, const ElementOps& elements, const RowOps& rows)
      : ops_(ops), elements_(elements), rows_(rows) {}

  size_t scratch_nbytes(const Job& job, const Block& tile) const override;
  bool fuse(const Job& job, const Block& tile, TileRows x, TileRows fused, TileRows ahead,
            Workspace& workspace) const override;
  bool record(const Job& job, const Block& tile, TileRows x, TileRows pristine, TileRows fused,
              const Corrections& corrections, TileRows ahead, Workspace& workspace) const override;
  void undo(const Job& job, const Block& tile, TileRows fused, TileRows undone, TileRows ahead,
            Workspace& workspace) const override;
  HashSteps hash() const override { return rows_.hash_steps; }
  EncodeCorrections encode() const override { return rows_.encode; }

 private:
  // The two ways of record(), but for what is done with the steps: in registers, and with sums in memory.
  bool record_at_once(const Job& job, const Block& tile, TileRows x, TileRows pristine, TileRows fused,
                      TileRows steps, TileRows ahead, Workspace& workspace) const;
  bool record_by_rows(const Job& job, const Block& tile, TileRows x, TileRows pristine, TileRows fused,
                      TileRows steps, TileRows ahead, Workspace& workspace) const;

  // use(m, col, cols, acc) for all of the tile; `x`: the base of terms that need one.
  template <class Use>
  void for_each_sum(const Job& job, const Block& tile, TileRows x, TileRows ahead, Workspace& workspace,
                    Use use) const;

  const TileOps& ops_;
  const ElementOps& elements_;
  const RowOps& rows_;
};

}  // namespace lora_mmap
