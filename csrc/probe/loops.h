// The loops that the probe times, for whatever this CPU has.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lora_mmap {

struct ProbeLoops {
  // `steps` steps of independent fp32 FMAs; returns the FLOPs done.
  double (*fma)(int64_t steps);
  // Flips one bit of every byte. `memory` is aligned to a cache line, `nbytes` a multiple of one.
  void (*flip)(std::byte* memory, size_t nbytes);
};

const ProbeLoops& probe_loops();
const ProbeLoops* probe_loops_avx2();  // null in a build for another architecture

}  // namespace lora_mmap
