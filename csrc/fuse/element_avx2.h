// ElementOps for AVX2 + FMA.
#pragma once

#include "fuse/element_ops.h"

namespace lora_mmap {

// Null in a build for another architecture. The caller checks that the CPU has the instructions.
const ElementOps* avx2_element_ops();

}  // namespace lora_mmap
