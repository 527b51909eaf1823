// Fusion of jobs with terms of every kind, in the contract's order. What plain LoRA pairs need has kernels of
// its own.
#pragma once

#include "cuda/kernels/terms.cuh"
#include "cuda/kernels/weight.cuh"

namespace lora_mmap::cuda {

LORA_MMAP_DEVICE bool store_fused(u32 type, u64 weight, u64 base, float acc) {
  const u32 bits = static_cast<u32>(base);
  return type == kF16    ? store_fused<F16>(weight, bits, acc)
         : type == kBF16 ? store_fused<BF16>(weight, bits, acc)
                         : store_fused<F32>(weight, bits, acc);
}
LORA_MMAP_DEVICE bool store_fused(u32, u64 weight, u64 base, double acc) {
  return store_fused_f64(weight, base, acc);
}

// In the order of the weight's memory, many loads before the first use; true where a result overflows.
template <class T>
LORA_MMAP_DEVICE bool finish_terms(const JobRow& job, const Tile& tile, Stage<T>& stage, Patch<T>& acc) {
  constexpr i32 kEach = 8;
  constexpr i32 kStep = static_cast<i32>(kThreads);
  const bool by_rows = goes_by_rows(job.weight_row_stride, job.weight_col_stride);
  const u32 nbytes = element_nbytes(job.type);
  block_barrier();
  stage.put(acc);
  block_barrier();
  bool overflow = false;
#pragma unroll 1
  for (i32 first = thread_index_again(); first < kPatchElements<T>; first += kEach * kStep) {
    u64 addresses[kEach];
#pragma unroll
    for (i32 k = 0; k < kEach; ++k) {
      const Walk to = Walk::at<T>(first + k * kStep, by_rows);
      const i64 at = (tile.row + to.m) * job.base_row_stride + (tile.col + to.n) * job.base_col_stride;
      addresses[k] = has(tile, to.m, to.n) ? job.base + at * nbytes : 0;
    }
    u64 bits[kEach];
    load_raw(nbytes, false, addresses, bits);
#pragma unroll
    for (i32 k = 0; k < kEach; ++k) {
      const Walk to = Walk::at<T>(first + k * kStep, by_rows);
      const i64 at = (tile.row + to.m) * job.weight_row_stride + (tile.col + to.n) * job.weight_col_stride;
      if (has(tile, to.m, to.n))
        overflow |= store_fused(job.type, job.weight + at * nbytes, bits[k], stage.at(to.m, to.n));
    }
  }
  return overflow;
}

// T is float, or double for fp64 weights.
template <class T>
LORA_MMAP_DEVICE void fuse_terms(const FuseParams& params) {
  const JobRow* jobs = pointer_to<const JobRow>(params.jobs);
  u32 owner = 0;
  for (u32 index = blockIdx.x; index < params.n_tiles; index += gridDim.x) {
    const Tile tile = tile_at(jobs, params.n_jobs, kPatchTile<T>, index, owner);
    owner = tile.owner;
    const JobRow& job = jobs[owner];
    const TermTile at{{job.base, job.base_row_stride, job.base_col_stride, 0, 0, job.type, false}, tile};
    Patch<T> acc;
    acc.clear();
#pragma unroll 1
    for (u32 k = 0; k < job.n_terms; ++k)
      add_term(pointer_to<const AnyTermRow>(params.terms)[job.first_term + k], at, acc);
    if (finish_terms(job, tile, at.stage<T>(), acc)) pointer_to<u32>(params.flags)[job.flag] = 1;
  }
}

}  // namespace lora_mmap::cuda
