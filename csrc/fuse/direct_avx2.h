// ElementOps::fuse_row for AVX2 + FMA + F16C.
#pragma once

#include "fuse/element_ops.h"

namespace lora_mmap {

// Only in a build for x86-64 (see element_avx2.h).
bool fuse_row_avx2(DType weight, const DirectRow& row);

}  // namespace lora_mmap
