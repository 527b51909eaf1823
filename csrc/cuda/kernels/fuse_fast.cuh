// Fusion by the tensor cores: exact products of the raw factors, fp32 sums whose order the hardware chooses,
// the scale applied to each term's sum by one fma. Tiles of 128 x 64, eight warps of 32 x 32.
#pragma once

#include "cuda/kernels/arithmetic.h"
#include "cuda/kernels/device.cuh"
#include "cuda/kernels/fast_factors.cuh"
#include "cuda/kernels/table.h"
#include "cuda/kernels/tiles.cuh"
#include "cuda/kernels/weight.cuh"

namespace lora_mmap::cuda {

// Of a warp's 32 x 32 elements: [16 rows][8 columns][of the fragment].
using Fragments = float[2][4][4];

// Where element `i` of a fragment lies: elements 0 and 1 are neighbours in a row, 2 and 3 eight rows below.
struct FragmentPlace {
  i32 row;
  i32 col;
};
LORA_MMAP_DEVICE FragmentPlace place_of(i32 thread, int m, int n, int pair) {
  const i32 warp = thread / 32;
  const i32 lane = thread % 32;
  return {warp / 2 * 32 + m * 16 + pair * 8 + lane / 4, warp % 2 * 32 + n * 8 + lane % 4 * 2};
}

LORA_MMAP_DEVICE void multiply_step(const FastFactors& factors, i32 first, [[maybe_unused]] bool bf16,
                                    Fragments& sums) {
  const i32 thread = thread_index_again();
  const i32 lane = thread % 32;
  const i32 row = thread / 64 * 32 + lane % 16;
  const i32 col = thread / 32 % 2 * 32 + lane / 16 * 8;
  u32 up[2][4];
  u32 down[2][4];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    load_matrices(&factors.up[row + 16 * i][first + lane / 16 * 8], up[i]);
    load_matrices_transposed(&factors.down[first + lane % 16][col + 16 * i], down[i]);
  }
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const u32 b0 = down[n / 2][n % 2 * 2];
      const u32 b1 = down[n / 2][n % 2 * 2 + 1];
#if LORA_MMAP_ARCH >= 80
      if (bf16) {
        multiply_matrices_bf16(sums[m][n], up[m], b0, b1);
        continue;
      }
#endif
      multiply_matrices_f16(sums[m][n], up[m], b0, b1);
    }
}

LORA_MMAP_DEVICE void end_term(float scale, Fragments& sums, Fragments& acc) {
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    float& sum = sums[i / 16][i / 4 % 4][i % 4];
    float& total = acc[i / 16][i / 4 % 4][i % 4];
    total = fused_multiply_add(scale, sum, total);
    sum = 0.0F;
  }
}

// 16-bit weights pass through shared memory, where they arrive and leave by whole rows.
struct FastWeights {
  u16 row[kFastTile.rows][kFastDownPitch];
};

// The tile's base, eight elements at a time. Visible to all after copies_wait and a barrier.
LORA_MMAP_DEVICE void bring_weights(const JobRow& job, const Tile& tile, FastWeights& weights) {
  const i32 thread = thread_index_again();
  const i32 col = thread % 8 * 8;
#pragma unroll
  for (i32 row = thread / 8; row < static_cast<i32>(kFastTile.rows); row += kThreads / 8) {
    if (row >= tile.rows() || col >= tile.cols()) continue;
    const u64 from = job.base + ((tile.row + row) * job.base_row_stride + tile.col + col) * 2;
#if LORA_MMAP_ARCH >= 80
    copy_begin_16(&weights.row[row][col], from, 16);
#else
    *reinterpret_cast<Words4*>(&weights.row[row][col]) = *pointer_to<const Words4>(from);
#endif
  }
}

LORA_MMAP_DEVICE void send_weights(const JobRow& job, const Tile& tile, const FastWeights& weights) {
  const i32 thread = thread_index_again();
  const i32 col = thread % 8 * 8;
#pragma unroll
  for (i32 row = thread / 8; row < static_cast<i32>(kFastTile.rows); row += kThreads / 8)
    if (row < tile.rows() && col < tile.cols())
      *pointer_to<Words4>(job.weight + ((tile.row + row) * job.weight_row_stride + tile.col + col) * 2) =
          *reinterpret_cast<const Words4*>(&weights.row[row][col]);
}

template <class Format>
LORA_MMAP_DEVICE bool add_in_shared_memory(const Tile& tile, const Fragments& acc, FastWeights& weights) {
  const i32 thread = thread_index_again();
  bool overflow = false;
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int n = 0; n < 4; ++n)
#pragma unroll
      for (int pair = 0; pair < 2; ++pair) {
        const FragmentPlace place = place_of(thread, m, n, pair);
        if (place.row >= tile.rows() || place.col >= tile.cols()) continue;
        u32& word = *reinterpret_cast<u32*>(&weights.row[place.row][place.col]);
        const u32 base = word;
        u32 sum = sum_word<Format>(base, &acc[m][n][2 * pair]);
        if (const u32 suspect = not_finite<Format>(sum)) {
          overflow |= (suspect & ~not_finite<Format>(base)) != 0;
          sum = keep_not_finite<Format>(base, sum);
        }
        word = sum;
      }
  return overflow;
}

// fp32 weights are read and written where they are: four lanes together fill a sector.
LORA_MMAP_DEVICE bool add_in_place(const JobRow& job, const Tile& tile, const Fragments& acc) {
  const i32 thread = thread_index_again();
  bool overflow = false;
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
      Words2 base[4];
      const FragmentPlace first = place_of(thread, m, 0, pair);
      if (first.row >= tile.rows()) continue;
      const u64 from = job.base + ((tile.row + first.row) * job.base_row_stride + tile.col + first.col) * 4;
      const u64 to = job.weight + ((tile.row + first.row) * job.weight_row_stride + tile.col + first.col) * 4;
#pragma unroll
      for (int n = 0; n < 4; ++n)
        if (first.col + n * 8 < tile.cols()) base[n] = *pointer_to<const Words2>(from + n * 32);
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        if (first.col + n * 8 >= tile.cols()) continue;
        const u32 x = sum_word<F32>(base[n].x, &acc[m][n][2 * pair]);
        const u32 y = sum_word<F32>(base[n].y, &acc[m][n][2 * pair + 1]);
        overflow |= (not_finite<F32>(x) & ~not_finite<F32>(base[n].x)) != 0;
        overflow |= (not_finite<F32>(y) & ~not_finite<F32>(base[n].y)) != 0;
        *pointer_to<Words2>(to + n * 32) = {keep_not_finite<F32>(base[n].x, x),
                                            keep_not_finite<F32>(base[n].y, y)};
      }
    }
  return overflow;
}

// Two chunks: one is multiplied while the next arrives.
struct FastShared {
  FastFactors factors[2];
  FastWeights weights;  // not there for fp32
};

LORA_MMAP_DEVICE void end_copies() {
#if LORA_MMAP_ARCH >= 80
  copies_end_group();
#endif
}
template <int kOpen>
LORA_MMAP_DEVICE void wait_copies() {
#if LORA_MMAP_ARCH >= 80
  copies_wait<kOpen>();
#endif
}

// Begins what comes after the chunk at hand: the next one, of this tile or of the following one.
LORA_MMAP_DEVICE bool begin_next(const FuseParams& params, const Tile& tile, u32 following, FastChunk& chunk,
                                 FastFactors& factors) {
  const JobRow* jobs = pointer_to<const JobRow>(params.jobs);
  const bool more = advance(params, chunk);
  if (more) {
    bring_chunk(params, tile, chunk, factors);
  } else if (following < params.n_tiles) {
    const Tile next = tile_at(jobs, params.n_jobs, kFastTile, following, tile.owner);
    prefetch_tile(jobs[next.owner], next, kFastTile);
    chunk = first_fast_chunk(params, jobs[next.owner]);
    bring_chunk(params, next, chunk, factors);
  }
  end_copies();
  return more;
}

// `slot` is where the chunk at hand is, or arrives.
template <class Format>
LORA_MMAP_DEVICE void accumulate_fast(const FuseParams& params, const JobRow& job, const Tile& tile,
                                      u32 following, FastChunk& chunk, u32& slot, FastShared& shared,
                                      Fragments& acc) {
  Fragments sums = {};
  bool more = true;
  for (bool first = true; more; first = false) {
    wait_copies<0>();
    block_barrier();  // the chunk is there, and nobody uses the other slot or the weights any more
    if constexpr (Format::kPerWord == 2) {
      if (first) bring_weights(job, tile, shared.weights);
      end_copies();
    }
    const FastChunk now = chunk;
    const bool ends = ends_term(params, now);
    const bool bf16 = term_of(params, now).down_type == kBF16;
    const float scale = static_cast<float>(term_of(params, now).scale);
    more = begin_next(params, tile, following, chunk, shared.factors[1 - slot]);
#pragma unroll 1
    for (i32 r = 0; r < now.ranks; r += 16) multiply_step(shared.factors[slot], r, bf16, sums);
    if (ends) end_term(scale, sums, acc);
    slot = 1 - slot;
  }
}

template <class Format>
LORA_MMAP_DEVICE bool finish_fast(const JobRow& job, const Tile& tile, const Fragments& acc,
                                  FastShared& shared) {
  if constexpr (Format::kPerWord == 1) return add_in_place(job, tile, acc);
  wait_copies<1>();  // all but the following tile's chunk
  block_barrier();
  const bool overflow = add_in_shared_memory<Format>(tile, acc, shared.weights);
  block_barrier();
  send_weights(job, tile, shared.weights);
  return overflow;
}

template <class Format>
LORA_MMAP_DEVICE void fuse_fast(const FuseParams& params) {
  const JobRow* jobs = pointer_to<const JobRow>(params.jobs);
  FastShared& shared = *reinterpret_cast<FastShared*>(shared_memory());
  u32 index = blockIdx.x;
  if (index >= params.n_tiles) return;
  Tile tile = tile_at(jobs, params.n_jobs, kFastTile, index, 0);
  FastChunk chunk = first_fast_chunk(params, jobs[tile.owner]);
  u32 slot = 0;
  bring_chunk(params, tile, chunk, shared.factors[slot]);
  end_copies();
  for (; index < params.n_tiles; index += gridDim.x) {
    tile = tile_at(jobs, params.n_jobs, kFastTile, index, tile.owner);
    Fragments acc = {};
    accumulate_fast<Format>(params, jobs[tile.owner], tile, index + gridDim.x, chunk, slot, shared, acc);
    if (finish_fast<Format>(jobs[tile.owner], tile, acc, shared))
      pointer_to<u32>(params.flags)[jobs[tile.owner].flag] = 1;
  }
}

static_assert(sizeof(FastShared) == 2 * kFastFactorsNbytes + kFastStageNbytes, "shared memory as launched");

}  // namespace lora_mmap::cuda
