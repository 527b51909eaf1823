// Fills memory from files: many byte ranges in one call.
#pragma once

#include <span>

#include "stream/chunks.h"

namespace lora_mmap::stream {

// Reads every request straight into its destination. Large requests are cut and requests that follow each
// other in a file are joined, so that the system is asked for about 1 MiB at a time. From 4 MiB in all, that
// happens on up to `threads` threads of the shared pool; less is read on the calling thread. The first
// failure stops what has not begun and is rethrown, after all has ended, as File::read_exact threw it;
// destinations are then partly written.
void read(std::span<const ReadRequest> requests, int threads = 1);

}  // namespace lora_mmap::stream
