// Fusion in the contract's order, for everything else: weights that are transposed, misaligned or have a
// number of columns that is no multiple of four; factors of any type and alignment, through maps, of any
// rank.
#pragma once

#include "cuda/kernels/accumulate.cuh"
#include "cuda/kernels/factor.cuh"
#include "cuda/kernels/weight.cuh"

namespace lora_mmap::cuda {

// One column of A and one row of B for each thread, half of the ranks; all loads before the first use.
template <u32 kType>
LORA_MMAP_DEVICE void fetch_down(const TermRow& term, const Tile& tile, i32 first, i32 ranks,
                                 OrderedFactors& factors) {
  constexpr i32 kEach = static_cast<i32>(kOrderedRanks) / 2;
  const i32 n = thread_index_again() % 128;
  const i32 r = thread_index_again() / 128 * kEach;
  if (n >= tile.cols()) return;
  float values[kEach] = {};
#pragma unroll
  for (i32 k = 0; k < kEach; ++k)
    if (r + k < ranks)
      values[k] =
          load_element<kType>(down_address(term, first + r + k, tile.col + n), term.layout & kDownBytes);
#pragma unroll
  for (i32 k = 0; k < kEach; ++k) factors.down[r + k][n] = values[k];
}

template <u32 kType>
LORA_MMAP_DEVICE void fetch_up(const TermRow& term, const Tile& tile, i32 first, i32 ranks,
                               OrderedFactors& factors) {
  constexpr i32 kEach = static_cast<i32>(kOrderedRanks) / 2;
  const i32 m = thread_index_again() % 128;
  const i32 r = thread_index_again() / 128 * kEach;
  if (m >= tile.rows()) return;
  const float scale = static_cast<float>(term.scale);
  float values[kEach] = {};
#pragma unroll
  for (i32 k = 0; k < kEach; ++k)
    if (r + k < ranks)
      values[k] = load_element<kType>(up_address(term, tile.row + m, first + r + k), term.layout & kUpBytes);
#pragma unroll
  for (i32 k = 0; k < kEach; ++k) factors.up[r + k][m] = multiply(values[k], scale);
}

#define LORA_MMAP_FOR_TYPE(type, function)                           \
  switch (type) {                                                    \
    case kF16:                                                       \
      return function<kF16>(term, tile, first, ranks, factors);      \
    case kBF16:                                                      \
      return function<kBF16>(term, tile, first, ranks, factors);     \
    case kF32:                                                       \
      return function<kF32>(term, tile, first, ranks, factors);      \
    case kF64:                                                       \
      return function<kF64>(term, tile, first, ranks, factors);      \
    case kE4M3:                                                      \
      return function<kE4M3>(term, tile, first, ranks, factors);     \
    case kE5M2:                                                      \
      return function<kE5M2>(term, tile, first, ranks, factors);     \
    case kE4M3FNUZ:                                                  \
      return function<kE4M3FNUZ>(term, tile, first, ranks, factors); \
    default:                                                         \
      return function<kE5M2FNUZ>(term, tile, first, ranks, factors); \
  }

LORA_MMAP_DEVICE void fetch_down(const TermRow& term, const Tile& tile, i32 first, i32 ranks,
                                 OrderedFactors& factors){LORA_MMAP_FOR_TYPE(term.down_type, fetch_down)}

LORA_MMAP_DEVICE void fetch_up(const TermRow& term, const Tile& tile, i32 first, i32 ranks,
                               OrderedFactors& factors){LORA_MMAP_FOR_TYPE(term.up_type, fetch_up)}
#undef LORA_MMAP_FOR_TYPE

LORA_MMAP_DEVICE void accumulate_any(const FuseParams& params, const JobRow& job, const Tile& tile,
                                     OrderedFactors& factors, float (&acc)[8][8]) {
  for (u32 k = 0; k < job.n_terms; ++k) {
    const TermRow& term = pointer_to<const TermRow>(params.terms)[job.first_term + k];
    for (i32 first = 0; first < term.rank; first += static_cast<i32>(kOrderedRanks)) {
      const i32 left = term.rank - first;
      const i32 ranks = left < static_cast<i32>(kOrderedRanks) ? left : static_cast<i32>(kOrderedRanks);
      block_barrier();  // nobody multiplies what was there before any more
      fetch_down(term, tile, first, ranks, factors);
      fetch_up(term, tile, first, ranks, factors);
      block_barrier();
      multiply_chunk(factors, ranks, acc);
    }
  }
}

// A quarter of a tile's accumulators, for weights of any strides: there whoever writes a row or a column of
// the weight can have its neighbours.
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
  for (i32 i = thread_index_again(); i < kRows * kStripCols; i += static_cast<i32>(kThreads)) {
    const i32 m = by_rows ? i / kStripCols : i % kRows;
    const i32 n = by_rows ? i % kStripCols : i / kRows;
    if (!has_group(tile, m, first_col + n)) continue;
    const i64 row = tile.row + m;
    const i64 col = tile.col + first_col + n;
    overflow |= fuse_element<Format>(
        job.weight + (row * job.weight_row_stride + col * job.weight_col_stride) * kNbytes,
        job.base + (row * job.base_row_stride + col * job.base_col_stride) * kNbytes,
        strip.acc[m][n ^ (m % kStripCols)]);
  }
  return overflow;
}

LORA_MMAP_DEVICE bool finish_elements(const JobRow& job, const Tile& tile, Strip& strip,
                                      const float (&acc)[8][8]) {
  const Lanes lanes{thread_index_again()};
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

LORA_MMAP_DEVICE void fuse_any(const FuseParams& params) {
  const JobRow* jobs = pointer_to<const JobRow>(params.jobs);
  OrderedFactors& factors = *reinterpret_cast<OrderedFactors*>(shared_memory());
  Strip& strip = *reinterpret_cast<Strip*>(shared_memory());
  u32 owner = 0;
  for (u32 index = blockIdx.x; index < params.n_tiles; index += gridDim.x) {
    const Tile tile = tile_at(jobs, params.n_jobs, kOrderedTile, index, owner);
    owner = tile.owner;
    float acc[8][8] = {};
    accumulate_any(params, jobs[owner], tile, factors, acc);
    if (finish_elements(jobs[owner], tile, strip, acc)) pointer_to<u32>(params.flags)[jobs[owner].flag] = 1;
  }
}

static_assert(sizeof(Strip) <= sizeof(OrderedFactors), "it takes their place");

}  // namespace lora_mmap::cuda
