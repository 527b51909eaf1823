// The limits of this machine, measured: what a kernel's time is held against. Each call takes some tens of
// milliseconds and returns the best of several rounds. Arguments out of range throw Error(Fault::argument).
#pragma once

#include <cstdint>

namespace lora_mmap {

// fp32 fused multiply-add throughput of `threads` threads together, in FLOP/s (two per FMA).
double probe_fma(int threads);

// Bytes read plus bytes written per second by `threads` threads that change every byte of `nbytes` in place.
double probe_read_write(int threads, int64_t nbytes);

// Bytes read plus bytes written per second by memcpy of `nbytes` on `threads` threads.
double probe_copy(int threads, int64_t nbytes);

}  // namespace lora_mmap
