// The reference kernel: plain loops in the order of the contract, any strides, any CPU.
#pragma once

#include "fuse/kernel.h"

namespace lora_mmap {

class ScalarKernel final : public Kernel {
 public:
  std::string_view name() const override { return "scalar"; }
  Tiling tiling(const Job& job, size_t scratch_limit) const override;
  bool fuse(const Job& job, const Block& block, Workspace& workspace) const override;
  Tiling norm_tiling(const Gains& gains, size_t scratch_limit) const override;
  void sum_squares(const Gains& gains, const Block& block, const Tiling& tiling, Workspace& workspace,
                   double* sums) const override;
};

}  // namespace lora_mmap
