// Writing of many factors in one call.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "branch/factor_write.h"

namespace lora_mmap {

// Writes every factor on up to `threads` threads; the bits depend on neither `threads` nor `isa` (see
// choose_kernel). A factor of the branch's type with a scale of 1 goes as it is, NaN payloads too. Jobs may
// share tiles but no elements. Returns for each job the number of elements that are not finite where the
// factor's are; all are written all the same. The caller's floating-point modes have no effect and come back
// unchanged. Throws Error(Fault::argument) before the first byte is written if a job makes no sense.
std::vector<int64_t> write_factors(const std::vector<FactorWrite>& jobs, int threads,
                                   const std::optional<std::string>& isa = std::nullopt);

}  // namespace lora_mmap
