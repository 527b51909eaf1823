// Fusion in the contract's order, for weights that lie in any other way: transposed, misaligned, with a number of
// columns that is no multiple of four.
#pragma once

#include "cuda/kernels/accumulate.cuh"
#include "cuda/kernels/weight.cuh"

namespace lora_mmap::cuda {

// A quarter of a tile's accumulators, for weights of any strides: there whoever writes a row or a column of the
// weight can have its neighbours.
constexpr i32 kStripCols = 32;
struct Strip {
  float acc[kOrderedTile.rows][kStripCols];
};

template <class Format>
LORA_MMAP_DEVICE bool finish_strip(const JobRow& job, const Tile& tile, i32 first_col, const Strip& strip) {
  constexpr i32 kRows = static_cast<i32>(kOrderedTile.rows);
  constexpr i64 kNbytes = sizeof(typename Format::Bits);
  const bool by_rows = job.weight_col_stride == 1 || job.weight_col_stride == -1;
  bool overflow = false;
#pragma unroll 1
  for (i32 i = static_cast<i32>(threadIdx.x); i < kRows * kStripCols; i += static_cast<i32>(kThreads)) {
    const i32 m = by_rows ? i / kStripCols : i % kRows;
    const i32 n = by_rows ? i % kStripCols : i / kRows;
    if (!has_group(tile, m, first_col + n)) continue;
    const i64 row = tile.row + m;
    const i64 col = tile.col + first_col + n;
    overflow |= fuse_element<Format>(
        job.weight + (row * job.weight_row_stride + col * job.weight_col_stride) * kNbytes,
        job.base + (row * job.base_row_stride + col * job.base_col_stride) * kNbytes, strip.acc[m][n ^ (m % kStripCols)]);
  }
  return overflow;
}

LORA_MMAP_DEVICE bool finish_elements(const JobRow& job, const Tile& tile, Strip& strip,
                                      const float (&acc)[8][8]) {
  const Lanes lanes{static_cast<i32>(threadIdx.x)};
  bool overflow = false;
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll 1
    for (i32 side = 0; side < 2; ++side) {
      const i32 first_col = side * 64 + half * kStripCols;
      block_barrier();
      if (lanes.col(half) == lanes.col(half) % 64 + side * 64) {
#pragma unroll
        for (int i = 0; i < 32; ++i) {
          const i32 row = lanes.row(i / 4);
          strip.acc[row][((lanes.col(0) + i % 4) ^ row) % kStripCols] = acc[i / 4][half * 4 + i % 4];
        }
      }
      block_barrier();
      overflow |= job.type == kF16    ? finish_strip<F16>(job, tile, first_col, strip)
                  : job.type == kBF16 ? finish_strip<BF16>(job, tile, first_col, strip)
                                      : finish_strip<F32>(job, tile, first_col, strip);
    }
  return overflow;
}

LORA_MMAP_DEVICE void fuse_strided(const FuseParams& params) {
  const JobRow* jobs = pointer_to<const JobRow>(params.jobs);
  OrderedFactors& factors = *reinterpret_cast<OrderedFactors*>(shared_memory());
  Strip& strip = *reinterpret_cast<Strip*>(shared_memory());
  u32 index = blockIdx.x;
  if (index >= params.n_tiles) return;
  Chunk chunk;
  StagedShare share{};
  begin_tile<false>(params, index, 0, chunk, share);
  for (u32 owner = 0; index < params.n_tiles; index += gridDim.x) {
    const Tile tile = tile_at(jobs, params.n_jobs, kOrderedTile, index, owner);
    owner = tile.owner;
    float acc[8][8] = {};
    accumulate_tile<false>(params, tile, index + gridDim.x, chunk, share, factors, acc);
    if (finish_elements(jobs[owner], tile, strip, acc)) pointer_to<u32>(params.flags)[jobs[owner].flag] = 1;
  }
}

static_assert(sizeof(Strip) <= sizeof(OrderedFactors), "it takes their place");

}  // namespace lora_mmap::cuda
