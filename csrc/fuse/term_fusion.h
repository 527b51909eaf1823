// PackedKernel's way with terms that are not low-rank: values and products in panels, a row at a time.
#pragma once

#include "fuse/element_ops.h"
#include "fuse/packed.h"

namespace lora_mmap {

// As Kernel's functions.
Tiling term_tiling(const TileOps& ops, const Job& job, size_t scratch_limit);
bool fuse_terms(const TileOps& ops, const ElementOps& elements, const Job& job, const Block& block,
                Workspace& workspace);

// The same for norms.
Tiling change_tiling(const TileOps& ops, const Gains& gains, size_t scratch_limit);
void sum_changed_squares(const TileOps& ops, const ElementOps& elements, const Gains& gains,
                         const Block& block, const Tiling& tiling, Workspace& workspace, double* sums);

}  // namespace lora_mmap
