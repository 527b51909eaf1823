// The limits of this machine, measured: what a kernel's time is held against. Each call takes some tens of
// milliseconds and returns the best of several rounds. Arguments out of range throw Error(Fault::argument).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lora_mmap {

// The instruction sets that probe_fma() can measure here, best first.
std::vector<std::string> probe_isas();

// fp32 fused multiply-add throughput of `threads` threads together, in FLOP/s (two per FMA), with the
// instructions of `isa`.
double probe_fma(int threads, const std::string& isa);

// Bytes read plus bytes written per second by `threads` threads that change every byte of `nbytes` in place,
// by the fastest of the ways that this CPU has: each instruction set, plain and cache-bypassing stores.
double probe_read_write(int threads, int64_t nbytes);

// Bytes read plus bytes written per second by memcpy of `nbytes` on `threads` threads.
double probe_copy(int threads, int64_t nbytes);

}  // namespace lora_mmap
