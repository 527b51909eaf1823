// The most fp32 fma a device can do: eight independent chains in each thread, nothing but registers.
#pragma once

#include "cuda/kernels/arithmetic.h"
#include "cuda/kernels/table.h"
#include "cuda/kernels/tiles.cuh"

namespace lora_mmap::cuda {

LORA_MMAP_DEVICE void probe_ffma(const ProbeParams& params) {
  constexpr int kChains = 8;
  float sum[kChains];
#pragma unroll
  for (int i = 0; i < kChains; ++i) sum[i] = static_cast<float>(threadIdx.x + static_cast<u32>(i));
#pragma unroll 1
  for (u32 round = 0; round < params.rounds; ++round)
#pragma unroll
    for (int step = 0; step < static_cast<int>(kProbeChain) / kChains; ++step)
#pragma unroll
      for (int i = 0; i < kChains; ++i) sum[i] = fused_multiply_add(sum[i], params.factor, params.factor);
  float total = 0;
#pragma unroll
  for (int i = 0; i < kChains; ++i) total = add(total, sum[i]);
  if (total == -1.0F) *pointer_to<float>(params.sink) = total;
}

}  // namespace lora_mmap::cuda
