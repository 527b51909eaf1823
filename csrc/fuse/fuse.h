// Fusion of many jobs in one call.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fuse/job.h"
#include "fuse/scratch.h"

namespace lora_mmap {

// Fuses every job on up to `threads` threads; the result's bits depend on neither `threads` nor `isa` (see
// choose_kernel) nor the scratch. Returns the indices, ascending, of the jobs in which a result is not finite
// where the base was: all of their elements are written all the same, and the caller restores them. Jobs must
// not overlap. The caller's floating-point modes have no effect and come back unchanged. The workers' scratch
// stays within `scratch_nbytes` and 16 MiB, or takes what the smallest blocks need. Throws
// Error(Fault::argument) before the first byte is written if a job makes no sense.
std::vector<int64_t> fuse(const std::vector<Job>& jobs, int threads,
                          const std::optional<std::string>& isa = std::nullopt,
                          size_t scratch_nbytes = kScratchNbytes);

// The most scratch, in bytes, that fuse() of the same would take.
size_t fuse_scratch_nbytes(const std::vector<Job>& jobs, int threads,
                           const std::optional<std::string>& isa = std::nullopt);

}  // namespace lora_mmap
