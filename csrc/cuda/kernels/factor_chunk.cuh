// The factors of a tile on their way from memory to shared memory, a chunk of their ranks at a time.
#pragma once

#include "cuda/kernels/accumulate.cuh"
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

LORA_MMAP_DEVICE void set_ranks(Chunk& chunk, const TermRow& term) {
  const i32 most = static_cast<i32>(term.down_type == kF32 ? kOrderedRanks / 2 : kOrderedRanks);
  const i32 left = term.rank - chunk.first;
  chunk.ranks = left < most ? left : most;
}

LORA_MMAP_DEVICE Chunk first_chunk(const FuseParams& params, const JobRow& job) {
  Chunk chunk{job.first_term, job.first_term + job.n_terms, 0, 0};
  if (job.n_terms) set_ranks(chunk, term_of(params, chunk));
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
  set_ranks(chunk, term_of(params, chunk));
  return true;
}

// One thread's share of a chunk on its way from memory to shared memory, in registers while another chunk is
// multiplied. 16-bit factors: of rank `thread / 16` of A the columns 4 * (thread % 16) and 64 more, of row
// `thread % 128` of B the ranks 8 * (thread / 128) and 4 more, four each. fp32 factors, of which a chunk has
// half as many ranks: of rank `thread / 32` four columns from 4 * (thread % 32), of row `thread % 128` four
// ranks from 4 * (thread / 128).
struct Share {
  Words4 down;
  Words4 up;
};

LORA_MMAP_DEVICE void load_paired_share(const TermRow& term, const Tile& tile, const Chunk& chunk,
                                        Share& share) {
  const i32 thread = thread_index_again();
  if (thread / 16 < chunk.ranks) {
    const i32 col = thread % 16 * 4;
    const u64 address = term.down + ((chunk.first + thread / 16) * term.down_row_stride + tile.col + col) * 2;
    Words2 groups[2] = {};
    if (col < tile.cols()) groups[0] = load_constant_8(address);
    if (col + 64 < tile.cols()) groups[1] = load_constant_8(address + 64 * 2);
    share.down = {groups[0].x, groups[0].y, groups[1].x, groups[1].y};
  }
  if (thread % 128 < tile.rows()) {
    const i32 rank = thread / 128 * 8;
    const u64 address = up_address(term, tile.row + thread % 128, chunk.first + rank);
    Words2 groups[2] = {};
    if (rank < chunk.ranks) groups[0] = load_constant_8(address);
    if (rank + 4 < chunk.ranks) groups[1] = load_constant_8(address + 4 * 2);
    share.up = {groups[0].x, groups[0].y, groups[1].x, groups[1].y};
  }
}

LORA_MMAP_DEVICE void load_wide_share(const TermRow& term, const Tile& tile, const Chunk& chunk,
                                      Share& share) {
  const i32 thread = thread_index_again();
  const i32 col = thread % 32 * 4;
  if (thread / 32 < chunk.ranks && col < tile.cols())
    share.down = load_constant_16(term.down +
                                  ((chunk.first + thread / 32) * term.down_row_stride + tile.col + col) * 4);
  const i32 rank = thread / 128 * 4;
  if (thread % 128 < tile.rows() && rank < chunk.ranks)
    share.up = load_constant_16(up_address(term, tile.row + thread % 128, chunk.first + rank));
}

LORA_MMAP_DEVICE void load_share(const FuseParams& params, const Tile& tile, const Chunk& chunk,
                                 Share& share) {
  share = {};  // nothing of the last one is kept, least of all in registers
  if (chunk.ranks == 0) return;
  const TermRow& term = term_of(params, chunk);
  if (is_paired(term.down_type))
    load_paired_share(term, tile, chunk, share);
  else
    load_wide_share(term, tile, chunk, share);
}

// Elements that do not exist are stored too, as whatever there is: nothing that is kept comes of them.
template <class Format>
LORA_MMAP_DEVICE void store_paired_share(const Share& share, float scale, OrderedFactors& factors) {
  const i32 thread = thread_index_again();
  const u32 down[4] = {share.down.x, share.down.y, share.down.z, share.down.w};
  const u32 up[4] = {share.up.x, share.up.y, share.up.z, share.up.w};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    Words4 values;
    values.x = bits_of(Format::widen(down[2 * i], 0));
    values.y = bits_of(Format::widen(down[2 * i], 1));
    values.z = bits_of(Format::widen(down[2 * i + 1], 0));
    values.w = bits_of(Format::widen(down[2 * i + 1], 1));
    *reinterpret_cast<Words4*>(&factors.down[thread / 16][thread % 16 * 4 + 64 * i]) = values;
  }
#pragma unroll
  for (int k = 0; k < 8; ++k)
    factors.up[thread / 128 * 8 + k][thread % 128] = multiply(Format::widen(up[k / 2], k % 2), scale);
}

LORA_MMAP_DEVICE void store_wide_share(const Share& share, float scale, OrderedFactors& factors) {
  const i32 thread = thread_index_again();
  *reinterpret_cast<Words4*>(&factors.down[thread / 32][thread % 32 * 4]) = share.down;
  const u32 up[4] = {share.up.x, share.up.y, share.up.z, share.up.w};
#pragma unroll
  for (int k = 0; k < 4; ++k)
    factors.up[thread / 128 * 4 + k][thread % 128] = multiply(float_of(up[k]), scale);
}

LORA_MMAP_DEVICE void store_share(const FuseParams& params, const Chunk& chunk, const Share& share,
                                  OrderedFactors& factors) {
  if (chunk.ranks == 0) return;
  const TermRow& term = term_of(params, chunk);
  const float scale = static_cast<float>(term.scale);
  if (term.down_type == kF16)
    store_paired_share<F16>(share, scale, factors);
  else if (term.down_type == kBF16)
    store_paired_share<BF16>(share, scale, factors);
  else
    store_wide_share(share, scale, factors);
}

}  // namespace lora_mmap::cuda
