#include "branch/branch_ops.h"

#include "branch/branch_ops_avx2.h"

namespace lora_mmap {

const BranchOps& choose_branch_ops(std::string_view isa) {
  const BranchOps* avx2 = avx2_branch_ops();
  return isa == "scalar" || !avx2 ? scalar_branch_ops() : *avx2;
}

}  // namespace lora_mmap
