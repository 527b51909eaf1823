// The reference: plain loops, any CPU.
#pragma once

#include "undo/tile_kernel.h"

namespace lora_mmap {

class ScalarTiles final : public TileKernel {
 public:
  size_t scratch_nbytes(const Job& job, const Block& tile) const override;
  bool fuse(const Job& job, const Block& tile, const void* x, void* fused, const Ahead& ahead,
            Workspace& workspace) const override;
  bool fuse(const Job& job, const Block& tile, const void* x, const void* pristine, void* fused,
            const Corrections& corrections, const Ahead& ahead, Workspace& workspace) const override;
  void undo(const Job& job, const Block& tile, void* values, const Ahead& ahead,
            Workspace& workspace) const override;
  HashSteps hash() const override { return hash_steps; }
};

}  // namespace lora_mmap
