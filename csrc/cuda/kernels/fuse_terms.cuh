// Fusion of jobs with terms of every kind, in the contract's order. What plain LoRA pairs need has kernels of
// its own.
#pragma once

#include "cuda/kernels/terms.cuh"
#include "cuda/kernels/weight.cuh"

namespace lora_mmap::cuda {

LORA_MMAP_DEVICE bool fuse_element(u32 type, u64 weight, u64 base, float acc) {
  return type == kF16    ? fuse_element<F16>(weight, base, acc)
         : type == kBF16 ? fuse_element<BF16>(weight, base, acc)
                         : fuse_element<F32>(weight, base, acc);
}
LORA_MMAP_DEVICE bool fuse_element(u32, u64 weight, u64 base, double acc) {
  return fuse_element(weight, base, acc);
}

// In the order of the weight's memory; true where a result overflows.
template <class T>
LORA_MMAP_DEVICE bool finish_terms(const JobRow& job, const Tile& tile, Stage<T>& stage, Patch<T>& acc) {
  const bool by_rows = goes_by_rows(job.weight_row_stride, job.weight_col_stride);
  const i64 nbytes = element_nbytes(job.type);
  block_barrier();
  stage.put(acc);
  block_barrier();
  bool overflow = false;
#pragma unroll 1
  for (i32 i = thread_index_again(); i < kPatchElements<T>; i += static_cast<i32>(kThreads)) {
    const Walk to = Walk::at<T>(i, by_rows);
    if (!has(tile, to.m, to.n)) continue;
    const i64 row = tile.row + to.m;
    const i64 col = tile.col + to.n;
    overflow |= fuse_element(
        job.type, job.weight + (row * job.weight_row_stride + col * job.weight_col_stride) * nbytes,
        job.base + (row * job.base_row_stride + col * job.base_col_stride) * nbytes, stage.at(to.m, to.n));
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
