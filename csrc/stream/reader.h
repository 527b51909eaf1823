// Fills memory from files: many byte ranges in one call.
#pragma once

#include <cstdint>
#include <span>

#include "safetensors/file.h"

namespace lora_mmap::stream {

struct ReadRequest {
  const safetensors::File* file = nullptr;  // open, and alive until read() returns
  uint64_t offset = 0;
  uint64_t nbytes = 0;
  void* destination = nullptr;  // `nbytes` writable bytes; requests must not overlap in memory
};

// Reads every request straight into its destination. From 4 MiB in all, pieces of at most 1 MiB are read on
// up to `threads` threads of the shared pool; less is read on the calling thread. The first failure stops the
// pieces that have not begun and is rethrown, after all pieces have ended, as File::read_exact threw it;
// destinations are then partly written.
void read(std::span<const ReadRequest> requests, int threads = 1);

}  // namespace lora_mmap::stream
