// BranchOps of AVX2 + F16C.
#pragma once

#include "branch/branch_ops.h"

namespace lora_mmap {

// Null in a build for another architecture. The caller checks that the CPU has the instructions.
const BranchOps* avx2_branch_ops();

}  // namespace lora_mmap
