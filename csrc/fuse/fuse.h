// Fusion of many jobs in one call.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fuse/job.h"

namespace lora_mmap {

// Fuses every job on up to `threads` threads; the result's bits depend on neither `threads` nor `isa` (see
// choose_kernel). Returns the indices, ascending, of the jobs in which a result is not finite where the base
// was: all of their elements are written all the same, and the caller restores them. Jobs must not overlap.
// The caller's floating-point modes have no effect and come back unchanged. Scratch memory stays within
// 16 MiB. Throws Error(Fault::argument) before the first byte is written if a job makes no sense.
std::vector<int64_t> fuse(const std::vector<Job>& jobs, int threads,
                          const std::optional<std::string>& isa = std::nullopt);

}  // namespace lora_mmap
