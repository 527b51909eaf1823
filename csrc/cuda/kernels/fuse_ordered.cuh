// Fusion in the contract's order, for what nearly every model and adapter is: weights whose rows lie in
// aligned groups of four, F16, BF16 or F32 factors that do too, ranks that are multiples of four.
#pragma once

#include "cuda/kernels/accumulate.cuh"
#include "cuda/kernels/factor_chunk.cuh"
#include "cuda/kernels/weight.cuh"

namespace lora_mmap::cuda {

// The base's values of a tile on their way to shared memory while the tile is computed: each thread fetches
// the groups that it will need itself, so no barrier stands between. 16-bit weights only: fp32 would not fit
// twice into a multiprocessor.
struct WeightStage {
  Words2 group[16][kThreads];
};
template <class Format>
constexpr bool kStaged = LORA_MMAP_ARCH >= 80 && Format::kPerWord == 2;

// The groups of a thread in a weight, row after row: two in each, 32 columns apart.
struct ThreadRows {
  u64 address;
  i64 row_nbytes;
  i32 rows_left;  // of the tile, from the thread's first on
  i32 cols_left;

  LORA_MMAP_DEVICE bool has(int i, int group) const {
    return Lanes::row_step(i) < rows_left && Lanes::col_step(group) < cols_left;
  }
  // From row `i` to the next.
  LORA_MMAP_DEVICE void advance(int i) {
    address += (Lanes::row_step(i + 1) - Lanes::row_step(i)) * row_nbytes;
  }
};

// Reads what it needs once: nothing that is kept from another place could stay in registers.
LORA_MMAP_DEVICE ThreadRows thread_rows(u64 data, i64 row_stride, i64 nbytes, const Tile& tile) {
  const Lanes lanes{thread_index_again()};
  return {data + ((tile.row + lanes.row(0)) * row_stride + tile.col + lanes.col(0)) * nbytes,
          row_stride * nbytes, tile.rows() - lanes.row(0), tile.cols() - lanes.col(0)};
}

LORA_MMAP_DEVICE void stage_weights(const JobRow& job, const Tile& tile, WeightStage& stage) {
  ThreadRows from = thread_rows(job.base, job.base_row_stride, 2, tile);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
#pragma unroll
    for (int g = 0; g < 2; ++g)
      if (from.has(i, g))
        copy_begin_8(&stage.group[2 * i + g][threadIdx.x], from.address + Lanes::col_step(g) * 2);
    from.advance(i);
  }
  copies_end_group();
}

template <class Format>
LORA_MMAP_DEVICE WeightGroup<Format> base_group(const WeightStage& stage, const ThreadRows& from, int i,
                                                int g) {
  if (!from.has(i, g)) return {};
  if constexpr (kStaged<Format>) {
    const Words2 staged = stage.group[2 * i + g][threadIdx.x];
    return {{staged.x, staged.y}};
  } else {
    return load_weights<Format>(from.address + Lanes::col_step(g) * sizeof(typename Format::Bits));
  }
}

// One row of a thread's elements.
template <class Format>
LORA_MMAP_DEVICE bool finish_row(const WeightStage& stage, const ThreadRows& from, const ThreadRows& to,
                                 int i, const float (&acc)[8]) {
  WeightGroup<Format> base[2];
  WeightGroup<Format> sum[2];
  u32 suspect = 0;
#pragma unroll
  for (int g = 0; g < 2; ++g) base[g] = base_group<Format>(stage, from, i, g);
#pragma unroll
  for (int g = 0; g < 2; ++g) sum[g] = sum_group<Format>(base[g], &acc[4 * g], suspect);
  bool overflow = false;
#pragma unroll
  for (int g = 0; g < 2; ++g) {
    if (!from.has(i, g)) continue;
    if (suspect != 0) overflow |= settle_group<Format>(base[g], sum[g]);
    store_weights<Format>(to.address + Lanes::col_step(g) * sizeof(typename Format::Bits), sum[g]);
  }
  return overflow;
}

template <class Format>
LORA_MMAP_DEVICE void finish_tile(const FuseParams& params, const JobRow& job, const Tile& tile,
                                  const WeightStage& stage, const float (&acc)[8][8]) {
  constexpr i64 kNbytes = sizeof(typename Format::Bits);
  if constexpr (kStaged<Format>) copies_wait<0>();
  ThreadRows from = thread_rows(job.base, job.base_row_stride, kNbytes, tile);
  ThreadRows to = thread_rows(job.weight, job.weight_row_stride, kNbytes, tile);
  bool overflow = false;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    overflow |= finish_row<Format>(stage, from, to, i, acc[i]);
    from.advance(i);
    to.advance(i);
  }
  if (overflow) pointer_to<u32>(params.flags)[job.flag] = 1;
}

// Everything that can be under way for a tile before the one before it is finished. Registers are too scarce
// to keep the tile itself.
LORA_MMAP_DEVICE void begin_tile(const FuseParams& params, u32 index, u32 from, Chunk& chunk, Share& share) {
  const JobRow* jobs = pointer_to<const JobRow>(params.jobs);
  const Tile tile = tile_at(jobs, params.n_jobs, kOrderedTile, index, from);
  prefetch_tile(jobs[tile.owner], tile, kOrderedTile);
  chunk = first_chunk(params, jobs[tile.owner]);
  load_share(params, tile, chunk, share);
}

// All chunks of a tile. While one is multiplied the next one is on its way, and behind the last the first of
// the tile that the block will come to next.
LORA_MMAP_DEVICE void accumulate_tile(const FuseParams& params, const Tile& tile, u32 following, Chunk& chunk,
                                      Share& share, OrderedFactors& factors, float (&acc)[8][8]) {
  for (bool last = false; !last;) {
    block_barrier();  // nobody multiplies the chunk before any more
    store_share(params, chunk, share, factors);
    block_barrier();
    const i32 ranks = chunk.ranks;
    last = !advance(params, chunk);
    if (!last)
      load_share(params, tile, chunk, share);
    else if (following < params.n_tiles)
      begin_tile(params, following, tile.owner, chunk, share);
    multiply_chunk(factors, ranks, acc);
  }
}

template <class Format>
LORA_MMAP_DEVICE void fuse_ordered(const FuseParams& params) {
  const JobRow* jobs = pointer_to<const JobRow>(params.jobs);
  OrderedFactors& factors = *reinterpret_cast<OrderedFactors*>(shared_memory());
  WeightStage& stage = *reinterpret_cast<WeightStage*>(shared_memory() + sizeof(OrderedFactors));
  u32 index = blockIdx.x;
  if (index >= params.n_tiles) return;
  Chunk chunk;
  Share share;
  begin_tile(params, index, 0, chunk, share);
  for (u32 owner = 0; index < params.n_tiles; index += gridDim.x) {
    const Tile tile = tile_at(jobs, params.n_jobs, kOrderedTile, index, owner);
    owner = tile.owner;
    if constexpr (kStaged<Format>) stage_weights(jobs[owner], tile, stage);
    float acc[8][8] = {};
    accumulate_tile(params, tile, index + gridDim.x, chunk, share, factors, acc);
    finish_tile<Format>(params, jobs[owner], tile_at(jobs, params.n_jobs, kOrderedTile, index, owner), stage,
                        acc);
  }
}

static_assert(sizeof(OrderedFactors) == kOrderedFactorsNbytes, "shared memory as launched");
static_assert(sizeof(WeightStage) == kOrderedStageNbytes, "shared memory as launched");

}  // namespace lora_mmap::cuda
