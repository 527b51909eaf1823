// The loops that the probe times, for whatever this CPU has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace lora_mmap {

struct ProbeLoops {
  const char* isa;  // as isas() names it
  // `steps` steps of independent fp32 FMAs; returns the FLOPs done.
  double (*fma)(int64_t steps);
  // Flips one bit of every byte. `memory` is aligned to a cache line, `nbytes` a multiple of one.
  void (*flip)(std::byte* memory, size_t nbytes);
  // The same with stores that bypass the caches; null where there are none.
  void (*flip_streaming)(std::byte* memory, size_t nbytes);
};

// What this CPU can run, best first.
const std::vector<const ProbeLoops*>& probe_loops();

// Null in a build for another architecture.
const ProbeLoops* probe_loops_avx512();
const ProbeLoops* probe_loops_avx2();

}  // namespace lora_mmap
