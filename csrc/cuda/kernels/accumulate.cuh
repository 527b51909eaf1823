// The contract's order of operations at the speed of the FMA pipes: tiles of 128 x 128, 8 x 8 accumulators in
// each of 256 threads, A and B * s in shared memory as fp32.
#pragma once

#include "cuda/kernels/arithmetic.h"
#include "cuda/kernels/device.cuh"
#include "cuda/kernels/factor.cuh"
#include "cuda/kernels/factor_chunk.cuh"
#include "cuda/kernels/table.h"
#include "cuda/kernels/tiles.cuh"

namespace lora_mmap::cuda {

// Which elements of the tile a thread accumulates: rows row(0) + {0, 1, 2, 3, 16, 17, 18, 19} and columns
// col(0) + {0, 1, 2, 3, 32, 33, 34, 35}. Lanes that share a column differ in bit 0 and lanes that share a row in
// bits 1 to 3, so that two quarters of a warp are served at once.
struct Lanes {
  i32 thread;

  LORA_MMAP_DEVICE i32 row(int i) const {
    return thread / 64 * 32 + ((thread & 1) | (thread >> 3 & 2)) * 4 + i % 4 + i / 4 * 16;
  }
  LORA_MMAP_DEVICE i32 col(int group) const { return (thread / 32 & 1) * 64 + (thread >> 1 & 7) * 4 + group * 32; }
};

LORA_MMAP_DEVICE void multiply_rank(const OrderedFactors& factors, i32 r, float (&acc)[8][8]) {
  const Lanes lanes{static_cast<i32>(threadIdx.x)};
  float down[8];
  float up[8];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const Words4 d = *reinterpret_cast<const Words4*>(&factors.down[r][lanes.col(i)]);
    const Words4 u = *reinterpret_cast<const Words4*>(&factors.up[r][lanes.row(4 * i)]);
    down[4 * i] = float_of(d.x), down[4 * i + 1] = float_of(d.y);
    down[4 * i + 2] = float_of(d.z), down[4 * i + 3] = float_of(d.w);
    up[4 * i] = float_of(u.x), up[4 * i + 1] = float_of(u.y);
    up[4 * i + 2] = float_of(u.z), up[4 * i + 3] = float_of(u.w);
  }
#pragma unroll
  for (int m = 0; m < 8; ++m)
#pragma unroll
    for (int n = 0; n < 8; ++n) acc[m][n] = fused_multiply_add(up[m], down[n], acc[m][n]);
}

// Not one rank more than there are: fma(0, x, acc) is not acc where x is infinite or acc is -0.
LORA_MMAP_DEVICE void multiply_chunk(const OrderedFactors& factors, i32 ranks, float (&acc)[8][8]) {
  i32 r = 0;
#pragma unroll 1
  for (; r + 8 <= ranks; r += 8)
#pragma unroll
    for (int i = 0; i < 8; ++i) multiply_rank(factors, r + i, acc);
#pragma unroll 1
  for (; r < ranks; ++r) multiply_rank(factors, r, acc);
}

LORA_MMAP_DEVICE bool has_group(const Tile& tile, i32 row, i32 col) {
  return row < tile.rows() && col < tile.cols();
}

// Calls for the lines of a tile that this block will come to next.
LORA_MMAP_DEVICE void prefetch_weights(const JobRow& job, const Tile& tile) {
  const i32 nbytes = static_cast<i32>(element_nbytes(job.type));
  const i32 elements = 128 / nbytes;  // of a line
  for (i32 line = static_cast<i32>(threadIdx.x); line < static_cast<i32>(kOrderedTile.rows) * nbytes;
       line += static_cast<i32>(kThreads)) {
    const i32 row = line / nbytes;
    const i32 col = line % nbytes * elements;
    if (has_group(tile, row, col))
      prefetch_line(job.base + ((tile.row + row) * job.base_row_stride + tile.col + col) * nbytes);
  }
}

// Everything that can be under way for a tile before the one before it is finished. Registers are too scarce to
// keep the tile itself.
template <bool kPrefetch>
LORA_MMAP_DEVICE void begin_tile(const FuseParams& params, u32 index, u32 from, Chunk& chunk, StagedShare& share) {
  const JobRow* jobs = pointer_to<const JobRow>(params.jobs);
  const Tile tile = tile_at(jobs, params.n_jobs, kOrderedTile, index, from);
  if constexpr (kPrefetch) prefetch_weights(jobs[tile.owner], tile);
  chunk = first_chunk(params, jobs[tile.owner]);
  load_share(params, tile, chunk, share);
}

// All chunks of a tile. While one is multiplied the next one is on its way, and behind the last the first of
// the tile that the block will come to next.
template <bool kPrefetch>
LORA_MMAP_DEVICE void accumulate_tile(const FuseParams& params, const Tile& tile, u32 following, Chunk& chunk,
                                      StagedShare& share, OrderedFactors& factors, float (&acc)[8][8]) {
  for (bool last = false; !last;) {
    block_barrier();  // nobody multiplies the chunk before any more
    store_chunk(params, tile, chunk, share, factors);
    block_barrier();
    const i32 ranks = chunk.ranks;
    last = !advance(params, chunk);
    if (!last)
      load_share(params, tile, chunk, share);
    else if (following < params.n_tiles)
      begin_tile<kPrefetch>(params, following, tile.owner, chunk, share);
    multiply_chunk(factors, ranks, acc);
  }
}

}  // namespace lora_mmap::cuda
