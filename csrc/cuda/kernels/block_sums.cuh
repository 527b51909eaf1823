// Sums over the threads of a block, by way of shared memory. They begin and end with a barrier, so what is
// there may be anything before and after.
#pragma once

#include "cuda/kernels/device.cuh"
#include "cuda/kernels/table.h"

namespace lora_mmap::cuda {

// The same for every thread.
LORA_MMAP_DEVICE u64 sum_over_block(u64 value, u64* shared) {
  const u32 thread = threadIdx.x;
  block_barrier();
  shared[thread] = value;
#pragma unroll 1
  for (u32 half = kThreads / 2; half > 0; half /= 2) {
    block_barrier();
    if (thread < half) shared[thread] += shared[thread + half];
  }
  block_barrier();
  const u64 total = shared[0];
  block_barrier();
  return total;
}

struct Ranked {
  u32 before;  // the sum over the threads before this one
  u32 total;
};

LORA_MMAP_DEVICE Ranked rank_in_block(u32 value, u32* shared) {
  const u32 thread = threadIdx.x;
  u32 sum = value;
  u32* from = shared;
  u32* to = shared + kThreads;
  block_barrier();
  from[thread] = sum;
#pragma unroll 1
  for (u32 step = 1; step < kThreads; step *= 2) {
    block_barrier();
    if (thread >= step) sum += from[thread - step];
    to[thread] = sum;
    u32* const next = from;
    from = to;
    to = next;
  }
  block_barrier();
  const u32 total = from[kThreads - 1];
  block_barrier();
  return {sum - value, total};
}

}  // namespace lora_mmap::cuda
