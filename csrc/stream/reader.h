// Fills memory from files: many byte ranges in one call.
#pragma once

#include <cstdint>
#include <span>

#include "safetensors/file.h"

namespace lora_mmap::stream {

struct ReadRequest {
  const safetensors::File* file = nullptr;          // open, and alive until read() returns
  const safetensors::Contents* contents = nullptr;  // names what cannot be read, if given: the Header
  uint64_t offset = 0;
  uint64_t nbytes = 0;
  void* destination = nullptr;  // `nbytes` writable bytes; requests must not overlap in memory
};

// Reads every request straight into its destination. Large requests are cut and requests that follow each
// other in a file are joined, so that the system is asked for about 1 MiB at a time. From 4 MiB in all, that
// happens on up to `threads` threads of the shared pool; less is read on the calling thread. The first
// failure stops what has not begun and is rethrown, after all has ended, as File::read_exact threw it;
// destinations are then partly written.
void read(std::span<const ReadRequest> requests, int threads = 1);

}  // namespace lora_mmap::stream
