// How the streaming room asks for threads without knowing whose they are.
#pragma once

#include <cstddef>
#include <functional>

namespace lora_mmap::stream {

// Calls body(i) once for every i < count, in any order and possibly at the same time, and returns when all
// calls have returned. The bodies passed by this room do not throw.
using ParallelFor = std::function<void(size_t count, const std::function<void(size_t)>& body)>;

// In order, on the calling thread.
void serial_for(size_t count, const std::function<void(size_t)>& body);

// At most `threads` at a time: the calling thread and others that live for the one call.
ParallelFor parallel_for(unsigned threads);

}  // namespace lora_mmap::stream
