// Panels into a branch.
#pragma once

#include "branch/panel.h"

namespace lora_mmap {

// Writes the panel's elements and no others: what shares a tile with them may be written at the same time.
void store_panel(const FactorWrite& write, const Sides& sides, const Panel& panel, const RowOps& ops);

}  // namespace lora_mmap
