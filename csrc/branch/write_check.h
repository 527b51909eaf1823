// What write_factors() asks of its jobs.
#pragma once

#include <vector>

#include "branch/factor_write.h"

namespace lora_mmap {

// Throws Error(Fault::argument) if a job makes no sense: ranges that begin below 0 or end before they begin,
// types that are no branch's or no factor's, null pointers and tiles or elements on top of each other where
// there is something to write, map entries below -1.
void check_writes(const std::vector<FactorWrite>& jobs);

}  // namespace lora_mmap
