// PackedKernel's way with jobs that memory bounds: one whole matrix, added in a single pass.
#pragma once

#include "fuse/element_ops.h"
#include "fuse/kernel.h"

namespace lora_mmap {

// Whether the job's only term is a whole matrix without a gain, times nothing or the base, and the rows of
// weight, base and matrix are contiguous, the matrix's of a type that ElementOps::fuse_row reads; a row of
// one value may have any type.
bool is_direct(const Job& job);

// As Kernel's functions, for jobs that are. No scratch.
Tiling direct_tiling(const Job& job);
bool fuse_directly(const ElementOps& elements, const Job& job, const Block& block);

}  // namespace lora_mmap
