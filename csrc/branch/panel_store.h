// Panels into a branch.
#pragma once

#include "branch/panel.h"

namespace lora_mmap {

// Writes the panel's elements and no others: what shares a tile with them may be written at the same time.
void store_panel(const FactorWrite& write, const Axes& axes, const Panel& panel, const BranchOps& ops);

}  // namespace lora_mmap
