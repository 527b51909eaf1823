// The factors of a tile on their way from memory to shared memory, sixteen ranks at a time.
#pragma once

#include "cuda/kernels/arithmetic.h"
#include "cuda/kernels/device.cuh"
#include "cuda/kernels/factor.cuh"
#include "cuda/kernels/table.h"
#include "cuda/kernels/tiles.cuh"

namespace lora_mmap::cuda {

// Successive ranks of one term. A job without terms has one chunk without ranks.
struct Chunk {
  u32 term;
  u32 end;  // of the job's terms
  i32 first;
  i32 ranks;
};

LORA_MMAP_DEVICE const TermRow& term_of(const FuseParams& params, const Chunk& chunk) {
  return pointer_to<const TermRow>(params.terms)[chunk.term];
}

LORA_MMAP_DEVICE i32 chunk_ranks(i32 left) {
  return left < static_cast<i32>(kOrderedRanks) ? left : static_cast<i32>(kOrderedRanks);
}

LORA_MMAP_DEVICE Chunk first_chunk(const FuseParams& params, const JobRow& job) {
  Chunk chunk{job.first_term, job.first_term + job.n_terms, 0, 0};
  if (job.n_terms) chunk.ranks = chunk_ranks(term_of(params, chunk).rank);
  return chunk;
}

// False if there is none after it.
LORA_MMAP_DEVICE bool advance(const FuseParams& params, Chunk& chunk) {
  if (chunk.term == chunk.end) return false;
  chunk.first += chunk.ranks;
  if (chunk.first == term_of(params, chunk).rank) {
    if (++chunk.term == chunk.end) return false;
    chunk.first = 0;
  }
  chunk.ranks = chunk_ranks(term_of(params, chunk).rank - chunk.first);
  return true;
}

// A chunk's factors, [rank][column] and [rank][row]. Whoever stores has four neighbouring columns, or its own
// row, and whoever multiplies has four of each: no access meets another in a bank.
struct OrderedFactors {
  float down[kOrderedRanks][kOrderedTile.cols];
  float up[kOrderedRanks][kOrderedTile.rows];
};

// One thread's share of a chunk on its way from memory to there, in registers while another chunk is multiplied.
// Factors that cannot be fetched by whole groups do not take this way.
struct StagedShare {
  Group down[2];  // of rank `thread / 16`, columns 4 * (thread % 16) and 64 more
  Group up[2];    // of row `thread % 128`, ranks 8 * (thread / 128) and 4 more
};

LORA_MMAP_DEVICE bool stages_down(const Tile& tile, const TermRow& term) {
  return (term.layout & kDownGroups) && tile.cols() % 4 == 0;
}
LORA_MMAP_DEVICE bool stages_up(const Chunk& chunk, const TermRow& term) {
  return (term.layout & kUpGroups) && chunk.ranks % 4 == 0;
}

LORA_MMAP_DEVICE void load_share(const FuseParams& params, const Tile& tile, const Chunk& chunk,
                                 StagedShare& share) {
  if (chunk.ranks == 0) return;
  const TermRow& term = term_of(params, chunk);
  const i32 thread = static_cast<i32>(threadIdx.x);
  if (stages_down(tile, term) && thread / 16 < chunk.ranks) {
    const i32 col = thread % 16 * 4;
    const u64 address = down_address(term, chunk.first + thread / 16, tile.col + col);
    if (col < tile.cols()) share.down[0] = load_group(term.down_type, address);
    if (col + 64 < tile.cols())
      share.down[1] = load_group(term.down_type, address + 64 * element_nbytes(term.down_type));
  }
  if (stages_up(chunk, term) && thread % 128 < tile.rows()) {
    const i32 rank = thread / 128 * 8;
    const u64 address = up_address(term, tile.row + thread % 128, chunk.first + rank);
    if (rank < chunk.ranks) share.up[0] = load_group(term.up_type, address);
    if (rank + 4 < chunk.ranks)
      share.up[1] = load_group(term.up_type, address + 4 * element_nbytes(term.up_type));
  }
}

// Elements that do not exist are stored too, as whatever there is: nothing that is kept comes of them.
template <u32 kType>
LORA_MMAP_DEVICE void store_down_as(const StagedShare& share, OrderedFactors& factors) {
  const u32 thread = threadIdx.x;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    Words4 down;
    down.x = bits_of(group_element<kType>(share.down[i], 0));
    down.y = bits_of(group_element<kType>(share.down[i], 1));
    down.z = bits_of(group_element<kType>(share.down[i], 2));
    down.w = bits_of(group_element<kType>(share.down[i], 3));
    *reinterpret_cast<Words4*>(&factors.down[thread / 16][thread % 16 * 4 + 64 * i]) = down;
  }
}

template <u32 kType>
LORA_MMAP_DEVICE void store_up_as(const StagedShare& share, float scale, OrderedFactors& factors) {
  const u32 thread = threadIdx.x;
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int k = 0; k < 4; ++k)
      factors.up[thread / 128 * 8 + 4 * i + k][thread % 128] =
          multiply(group_element<kType>(share.up[i], k), scale);
}

LORA_MMAP_DEVICE void store_down(const StagedShare& share, u32 type, OrderedFactors& factors) {
  if (type == kF16)
    store_down_as<kF16>(share, factors);
  else if (type == kBF16)
    store_down_as<kBF16>(share, factors);
  else
    store_down_as<kF32>(share, factors);
}

LORA_MMAP_DEVICE void store_up(const StagedShare& share, u32 type, float scale, OrderedFactors& factors) {
  if (type == kF16)
    store_up_as<kF16>(share, scale, factors);
  else if (type == kBF16)
    store_up_as<kBF16>(share, scale, factors);
  else
    store_up_as<kF32>(share, scale, factors);
}

// Straight from memory, one element at a time: any type, alignment and map.
LORA_MMAP_DEVICE void fetch_down(const TermRow& term, const Tile& tile, const Chunk& chunk, OrderedFactors& factors) {
  const i32 n = static_cast<i32>(threadIdx.x) % 128;
  if (n >= tile.cols()) return;
#pragma unroll 1
  for (i32 r = static_cast<i32>(threadIdx.x) / 128; r < chunk.ranks; r += 2)
    factors.down[r][n] = load_element(term.down_type, down_address(term, chunk.first + r, tile.col + n),
                                      term.layout & kDownBytes);
}

LORA_MMAP_DEVICE void fetch_up(const TermRow& term, const Tile& tile, const Chunk& chunk, float scale, OrderedFactors& factors) {
  const i32 m = static_cast<i32>(threadIdx.x) % 128;
  if (m >= tile.rows()) return;
#pragma unroll 1
  for (i32 r = static_cast<i32>(threadIdx.x) / 128; r < chunk.ranks; r += 2)
    factors.up[r][m] = multiply(
        load_element(term.up_type, up_address(term, tile.row + m, chunk.first + r), term.layout & kUpBytes),
        scale);
}

LORA_MMAP_DEVICE void store_chunk(const FuseParams& params, const Tile& tile, const Chunk& chunk, const StagedShare& share,
                                  OrderedFactors& factors) {
  if (chunk.ranks == 0) return;
  const TermRow& term = term_of(params, chunk);
  const float scale = static_cast<float>(term.scale);
  if (stages_down(tile, term))
    store_down(share, term.down_type, factors);
  else
    fetch_down(term, tile, chunk, factors);
  if (stages_up(chunk, term))
    store_up(share, term.up_type, scale, factors);
  else
    fetch_up(term, tile, chunk, scale, factors);
}

}  // namespace lora_mmap::cuda
