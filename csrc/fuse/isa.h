// Run-time choice of the instruction set. To add one: a file with its TileOps, and a line in isa.cpp.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fuse/kernel.h"

namespace lora_mmap {

// The kernels that this CPU can run, best first.
const std::vector<const Kernel*>& available_kernels();

// The kernel called `name`; without a name the one in LORA_MMAP_ISA, or else the best. Throws
// Error(Fault::argument) for a name that is unknown or that this CPU cannot run.
const Kernel& choose_kernel(const std::optional<std::string>& name = std::nullopt);

}  // namespace lora_mmap
