// The reference: plain loops, any CPU.
#pragma once

#include "undo/tile_kernel.h"

namespace lora_mmap {

class ScalarTiles final : public TileKernel {
 public:
  size_t scratch_nbytes(const Job& job, const Block& tile) const override;
  bool fuse(const Job& job, const Block& tile, TileRows x, TileRows fused, TileRows ahead,
            Workspace& workspace) const override;
  bool record(const Job& job, const Block& tile, TileRows x, TileRows pristine, TileRows fused,
              const Corrections& corrections, TileRows ahead, Workspace& workspace) const override;
  void undo(const Job& job, const Block& tile, TileRows fused, TileRows undone, TileRows ahead,
            Workspace& workspace) const override;
  HashSteps hash() const override { return hash_steps; }
  EncodeCorrections encode() const override { return encode_corrections; }
};

}  // namespace lora_mmap
