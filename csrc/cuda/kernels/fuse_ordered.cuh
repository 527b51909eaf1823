// The contract's order of operations at the speed of the FMA pipes: tiles of 128 x 128, 8 x 8 accumulators in
// each of 256 threads, A and B * s in shared memory as fp32 by chunks of 16 ranks.
#pragma once

#include "cuda/kernels/arithmetic.h"
#include "cuda/kernels/device.cuh"
#include "cuda/kernels/factor.cuh"
#include "cuda/kernels/table.h"
#include "cuda/kernels/tiles.cuh"
#include "cuda/kernels/weight.cuh"

namespace lora_mmap::cuda {

// Successive ranks of one term. A job without terms has one chunk without ranks.
struct Chunk {
  const TermRow* term;
  u32 terms_left;  // this one included
  i32 first;
  i32 ranks;
};

LORA_MMAP_DEVICE i32 chunk_ranks(i32 left) {
  return left < static_cast<i32>(kOrderedRanks) ? left : static_cast<i32>(kOrderedRanks);
}

LORA_MMAP_DEVICE Chunk first_chunk(const FuseParams& params, const JobRow& job) {
  const TermRow* term = pointer_to<const TermRow>(params.terms) + job.first_term;
  return {term, job.n_terms, 0, job.n_terms ? chunk_ranks(term->rank) : 0};
}

// False if there is none after it.
LORA_MMAP_DEVICE bool advance(Chunk& chunk) {
  if (chunk.terms_left == 0) return false;
  chunk.first += chunk.ranks;
  if (chunk.first == chunk.term->rank) {
    if (--chunk.terms_left == 0) return false;
    ++chunk.term;
    chunk.first = 0;
  }
  chunk.ranks = chunk_ranks(chunk.term->rank - chunk.first);
  return true;
}

// A chunk's factors, [rank][column] and [rank][row]. Whoever stores has four neighbouring columns, or its own
// row, and whoever multiplies has four of each: no access meets another in a bank.
struct OrderedFactors {
  float down[kOrderedRanks][kOrderedTile.cols];
  float up[kOrderedRanks][kOrderedTile.rows];
};

// One thread's share of a chunk on its way from memory to there.
struct StagedShare {
  Group down[2];  // of rank `thread / 16`, columns 4 * (thread % 16) and 64 more
  Group up[2];    // of row `thread % 128`, ranks 8 * (thread / 128) and 4 more
};

LORA_MMAP_DEVICE StagedShare load_share(const Tile& tile, const Chunk& chunk) {
  StagedShare share{};
  if (chunk.ranks == 0) return share;
  const TermRow& term = *chunk.term;
  const i32 thread = static_cast<i32>(threadIdx.x);
  const i32 rank = thread / 16;
  if (rank < chunk.ranks) {
    const u64 row = term.down + (chunk.first + rank) * term.down_row_stride * element_nbytes(term.down_type);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const i32 col = thread % 16 * 4 + 64 * i;
      share.down[i] = load_group(term.down_type, row, tile.col + col, term.col_map, tile.cols - col,
                                 term.layout & kDownGroups, term.layout & kDownBytes);
    }
  }
  const i32 m = thread % 128;
  if (m < tile.rows) {
    const i64 up_row = term.row_map ? pointer_to<const i32>(term.row_map)[tile.row + m] : tile.row + m;
    const u64 row = term.up + up_row * term.up_row_stride * element_nbytes(term.up_type);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const i32 r = thread / 128 * 8 + 4 * i;
      share.up[i] = load_group(term.up_type, row, chunk.first + r, 0, chunk.ranks - r, term.layout & kUpGroups,
                               term.layout & kUpBytes);
    }
  }
  return share;
}

LORA_MMAP_DEVICE void store_share(const StagedShare& share, const Chunk& chunk, OrderedFactors& factors) {
  if (chunk.ranks == 0) return;
  const u32 down_type = chunk.term->down_type;
  const u32 up_type = chunk.term->up_type;
  const float scale = static_cast<float>(chunk.term->scale);
  const u32 thread = threadIdx.x;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    Words4 down;
    down.x = bits_of(group_element(down_type, share.down[i], 0));
    down.y = bits_of(group_element(down_type, share.down[i], 1));
    down.z = bits_of(group_element(down_type, share.down[i], 2));
    down.w = bits_of(group_element(down_type, share.down[i], 3));
    *reinterpret_cast<Words4*>(&factors.down[thread / 16][thread % 16 * 4 + 64 * i]) = down;
#pragma unroll
    for (int k = 0; k < 4; ++k)
      factors.up[thread / 128 * 8 + 4 * i + k][thread % 128] =
          multiply(group_element(up_type, share.up[i], k), scale);
  }
}

// Which elements of the tile a thread accumulates: rows row() + {0, 1, 2, 3, 16, 17, 18, 19} and columns
// col() + {0, 1, 2, 3, 32, 33, 34, 35}. Lanes that share a column differ in bit 0 and lanes that share a row in
// bits 1 to 3, so that two quarters of a warp are served at once.
struct Lanes {
  static LORA_MMAP_DEVICE i32 row() {
    const i32 thread = static_cast<i32>(threadIdx.x);
    return thread / 64 * 32 + ((thread & 1) | (thread >> 3 & 2)) * 4;
  }
  static LORA_MMAP_DEVICE i32 col() {
    const i32 thread = static_cast<i32>(threadIdx.x);
    return (thread / 32 & 1) * 64 + (thread >> 1 & 7) * 4;
  }
  static LORA_MMAP_DEVICE constexpr i32 row_step(int i) { return i % 4 + i / 4 * 16; }
  static LORA_MMAP_DEVICE constexpr i32 group_step(int i) { return i * 32; }
};

LORA_MMAP_DEVICE void multiply_rank(const OrderedFactors& factors, i32 r, float (&acc)[8][8]) {
  float down[8];
  float up[8];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const Words4 d = *reinterpret_cast<const Words4*>(&factors.down[r][Lanes::col() + Lanes::group_step(i)]);
    const Words4 u = *reinterpret_cast<const Words4*>(&factors.up[r][Lanes::row() + Lanes::row_step(4 * i)]);
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

LORA_MMAP_DEVICE i32 group_count(const Tile& tile, i32 row, i32 col) {
  const i32 left = row < tile.rows ? tile.cols - col : 0;
  return left < 0 ? 0 : left < 4 ? left : 4;
}

// The base's values of a tile on their way to shared memory while the tile is computed: each thread fetches the
// groups that it will need itself, so no barrier stands between. 16-bit weights only: fp32 would not fit twice
// into a multiprocessor.
struct WeightStage {
  Words2 group[16][kThreads];

  static LORA_MMAP_DEVICE bool serves(const JobRow& job, const Place& place) {
    return LORA_MMAP_ARCH >= 80 && is_paired(job.type) && place.aligned;
  }
};

LORA_MMAP_DEVICE void stage_weights(const JobRow& job, const Tile& tile, WeightStage& stage) {
#if LORA_MMAP_ARCH >= 80
  if (!is_paired(job.type) || !(job.layout & kBaseGroups)) return;
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const i32 row = Lanes::row() + Lanes::row_step(i / 2);
    const i32 col = Lanes::col() + Lanes::group_step(i % 2);
    const Place place = place_in<F16>(job.base, job.base_row_stride, 1, true, tile.row + row, tile.col + col,
                                      group_count(tile, row, col));
    if (place.aligned) copy_begin_8(&stage.group[i][threadIdx.x], place.address);
  }
  copies_end_group();
#endif
}

// Calls for the lines of a tile that this block will come to next.
LORA_MMAP_DEVICE void prefetch_weights(const JobRow& job, const Tile& tile) {
  if (!(job.layout & kBaseGroups)) return;
  const i32 nbytes = static_cast<i32>(element_nbytes(job.type));
  const i32 elements = 128 / nbytes;  // of a line
  for (i32 line = static_cast<i32>(threadIdx.x); line < static_cast<i32>(kOrderedTile.rows) * nbytes;
       line += static_cast<i32>(kThreads)) {
    const i32 row = line / nbytes;
    const i32 col = line % nbytes * elements;
    if (row < tile.rows && col < tile.cols)
      prefetch_line(job.base + ((tile.row + row) * job.base_row_stride + tile.col + col) * nbytes);
  }
}

// Two rows of a thread's elements at a time: enough loads in flight, and no register beyond the 128 there are.
template <class Format>
LORA_MMAP_DEVICE bool finish_rows(const JobRow& job, const Tile& tile, const WeightStage& stage, int first,
                                  const float (&acc)[8][8]) {
  WeightGroup<Format> base[4];
  WeightGroup<Format> sum[4];
  u32 suspect = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const i32 row = Lanes::row() + Lanes::row_step(first + i / 2);
    const i32 col = Lanes::col() + Lanes::group_step(i % 2);
    const Place from = place_in<Format>(job.base, job.base_row_stride, job.base_col_stride,
                                        job.layout & kBaseGroups, tile.row + row, tile.col + col,
                                        group_count(tile, row, col));
    if (Format::kPerWord == 2 && WeightStage::serves(job, from)) {
      const Words2 staged = stage.group[2 * first + i][threadIdx.x];
      base[i].word[0] = staged.x;
      base[i].word[1] = staged.y;
    } else {
      base[i] = load_weights<Format>(from);
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) sum[i] = sum_group<Format>(base[i], &acc[first + i / 2][i % 2 * 4], suspect);
  bool overflow = false;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const i32 row = Lanes::row() + Lanes::row_step(first + i / 2);
    const i32 col = Lanes::col() + Lanes::group_step(i % 2);
    const Place to = place_in<Format>(job.weight, job.weight_row_stride, job.weight_col_stride,
                                      job.layout & kWeightGroups, tile.row + row, tile.col + col,
                                      group_count(tile, row, col));
    if (suspect != 0) overflow |= settle_group<Format>(base[i], sum[i], to.count);
    store_weights<Format>(to, sum[i]);
  }
  return overflow;
}

template <class Format>
LORA_MMAP_DEVICE bool finish_tile(const JobRow& job, const Tile& tile, const WeightStage& stage,
                                  const float (&acc)[8][8]) {
  bool overflow = false;
#pragma unroll
  for (int row = 0; row < 8; row += 2) overflow |= finish_rows<Format>(job, tile, stage, row, acc);
  return overflow;
}

LORA_MMAP_DEVICE void finish_tile(const FuseParams& params, const JobRow& job, const Tile& tile,
                                  const WeightStage& stage, const float (&acc)[8][8]) {
#if LORA_MMAP_ARCH >= 80
  copies_wait<0>();
#endif
  const bool overflow = job.type == kF16    ? finish_tile<F16>(job, tile, stage, acc)
                        : job.type == kBF16 ? finish_tile<BF16>(job, tile, stage, acc)
                                            : finish_tile<F32>(job, tile, stage, acc);
  if (overflow) pointer_to<u32>(params.flags)[job.flag] = 1;
}

// All chunks of a tile; the next one is on its way while one is multiplied, after the last one the first of the
// tile that follows (if `more`).
LORA_MMAP_DEVICE void accumulate_tile(const FuseParams& params, const Tile& tile, const Tile& next, bool more,
                                      Chunk& chunk, StagedShare& share, OrderedFactors& factors,
                                      float (&acc)[8][8]) {
  const JobRow* jobs = pointer_to<const JobRow>(params.jobs);
  for (bool last = false; !last;) {
    block_barrier();  // nobody multiplies the chunk before any more
    store_share(share, chunk, factors);
    block_barrier();
    const i32 ranks = chunk.ranks;
    last = !advance(chunk);
    if (last && more) chunk = first_chunk(params, jobs[next.owner]);
    if (!last || more) share = load_share(last ? next : tile, chunk);
    multiply_chunk(factors, ranks, acc);
  }
}

LORA_MMAP_DEVICE void fuse_ordered(const FuseParams& params) {
  const JobRow* jobs = pointer_to<const JobRow>(params.jobs);
  OrderedFactors& factors = *reinterpret_cast<OrderedFactors*>(shared_memory());
  WeightStage& stage = *reinterpret_cast<WeightStage*>(shared_memory() + sizeof(OrderedFactors));
  u64 index = blockIdx.x;
  if (index >= params.n_tiles) return;
  Tile tile = tile_at(jobs, params.n_jobs, kOrderedTile, index, 0);
  Chunk chunk = first_chunk(params, jobs[tile.owner]);
  StagedShare share = load_share(tile, chunk);
  while (true) {
    index += gridDim.x;
    const bool more = index < params.n_tiles;
    stage_weights(jobs[tile.owner], tile, stage);
    Tile next = tile;
    if (more) {
      next = tile_at(jobs, params.n_jobs, kOrderedTile, index, tile.owner);
      prefetch_weights(jobs[next.owner], next);
    }
    float acc[8][8] = {};
    accumulate_tile(params, tile, next, more, chunk, share, factors, acc);
    finish_tile(params, jobs[tile.owner], tile, stage, acc);
    if (!more) return;
    tile = next;
  }
}

static_assert(sizeof(OrderedFactors) == ordered_shared_nbytes(75), "shared memory as launched");
static_assert(sizeof(OrderedFactors) + sizeof(WeightStage) == ordered_shared_nbytes(80), "shared memory as launched");

}  // namespace lora_mmap::cuda
