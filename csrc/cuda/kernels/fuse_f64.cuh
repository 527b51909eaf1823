// fp64 weights: the same order of operations in fp64. Few models have any, so nothing here is in flight while
// something else computes.
#pragma once

#include "cuda/kernels/arithmetic.h"
#include "cuda/kernels/device.cuh"
#include "cuda/kernels/factor.cuh"
#include "cuda/kernels/table.h"
#include "cuda/kernels/tiles.cuh"
#include "cuda/kernels/weight.cuh"

namespace lora_mmap::cuda {

struct F64Factors {
  double down[kF64Ranks][kF64Tile.cols];
  double up[kF64Ranks][kF64Tile.rows];
};

LORA_MMAP_DEVICE void load_f64_factors(const TermRow& term, const Tile& tile, i32 first, i32 ranks,
                                       F64Factors& factors) {
  const u32 thread = threadIdx.x;
  for (i32 i = static_cast<i32>(thread); i < ranks * static_cast<i32>(kF64Tile.cols); i += kThreads) {
    const i32 r = i / static_cast<i32>(kF64Tile.cols);
    const i32 n = i % static_cast<i32>(kF64Tile.cols);
    if (n >= tile.cols()) continue;
    const u64 address = down_address(term, first + r, tile.col + n);
    factors.down[r][n] = load_element_as_double(term.down_type, address, term.layout & kDownBytes);
  }
  for (i32 i = static_cast<i32>(thread); i < static_cast<i32>(kF64Ranks * kF64Tile.rows); i += kThreads) {
    const i32 m = i / static_cast<i32>(kF64Ranks);
    const i32 r = i % static_cast<i32>(kF64Ranks);
    if (m >= tile.rows() || r >= ranks) continue;
    const u64 address = up_address(term, tile.row + m, first + r);
    factors.up[r][m] =
        multiply(load_element_as_double(term.up_type, address, term.layout & kUpBytes), term.scale);
  }
}

// Thread (x, y) of 16 x 16 accumulates rows y, y + 16, ... and columns x, x + 16, ...
LORA_MMAP_DEVICE void multiply_f64(const F64Factors& factors, i32 ranks, double (&acc)[4][4]) {
  for (i32 r = 0; r < ranks; ++r)
#pragma unroll
    for (int m = 0; m < 4; ++m)
#pragma unroll
      for (int n = 0; n < 4; ++n)
        acc[m][n] = fused_multiply_add(factors.up[r][threadIdx.x / 16 + 16 * m],
                                       factors.down[r][threadIdx.x % 16 + 16 * n], acc[m][n]);
}

LORA_MMAP_DEVICE bool finish_f64(const JobRow& job, const Tile& tile, const double (&acc)[4][4]) {
  bool overflow = false;
#pragma unroll
  for (int m = 0; m < 4; ++m)
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const i32 row = static_cast<i32>(threadIdx.x / 16) + 16 * m;
      const i32 col = static_cast<i32>(threadIdx.x % 16) + 16 * n;
      if (row >= tile.rows() || col >= tile.cols()) continue;
      const i64 i = tile.row + row;
      const i64 j = tile.col + col;
      overflow |= store_fused_f64(
          job.weight + (i * job.weight_row_stride + j * job.weight_col_stride) * 8,
          pointer_to<const u64>(job.base)[i * job.base_row_stride + j * job.base_col_stride], acc[m][n]);
    }
  return overflow;
}

LORA_MMAP_DEVICE void fuse_f64(const FuseParams& params) {
  const JobRow* jobs = pointer_to<const JobRow>(params.jobs);
  F64Factors& factors = *reinterpret_cast<F64Factors*>(shared_memory());
  u32 owner = 0;
  for (u32 index = blockIdx.x; index < params.n_tiles; index += gridDim.x) {
    const Tile tile = tile_at(jobs, params.n_jobs, kF64Tile, index, owner);
    owner = tile.owner;
    const JobRow& job = jobs[owner];
    double acc[4][4] = {};
    for (u32 k = 0; k < job.n_terms; ++k) {
      const TermRow& term = pointer_to<const TermRow>(params.terms)[job.first_term + k];
      for (i32 first = 0; first < term.rank; first += static_cast<i32>(kF64Ranks)) {
        const i32 left = term.rank - first;
        const i32 ranks = left < static_cast<i32>(kF64Ranks) ? left : static_cast<i32>(kF64Ranks);
        block_barrier();
        load_f64_factors(term, tile, first, ranks, factors);
        block_barrier();
        multiply_f64(factors, ranks, acc);
      }
    }
    if (finish_f64(job, tile, acc)) pointer_to<u32>(params.flags)[job.flag] = 1;
  }
}

static_assert(sizeof(F64Factors) == kF64SharedNbytes, "shared memory as launched");

}  // namespace lora_mmap::cuda
