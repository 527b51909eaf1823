// Fusion in the contract's order, for what nearly every model and adapter is: weights whose rows lie in aligned
// groups of four, F16, BF16 or F32 factors that do too, ranks that are multiples of four.
#pragma once

#include "cuda/kernels/accumulate.cuh"
#include "cuda/kernels/factor_chunk.cuh"
#include "cuda/kernels/weight.cuh"

namespace lora_mmap::cuda {

// The base's values of a tile on their way to shared memory while the tile is computed: each thread fetches the
// groups that it will need itself, so no barrier stands between. 16-bit weights only: fp32 would not fit twice
// into a multiprocessor.
struct WeightStage {
  Words2 group[16][kThreads];
};
template <class Format>
constexpr bool kStaged = LORA_MMAP_ARCH >= 80 && Format::kPerWord == 2;

LORA_MMAP_DEVICE void stage_weights(const JobRow& job, const Tile& tile, WeightStage& stage) {
  const Lanes lanes{thread_index_again()};
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const i32 row = lanes.row(i / 2);
    const i32 col = lanes.col(i % 2);
    if (has_group(tile, row, col))
      copy_begin_8(&stage.group[i][threadIdx.x],
                   job.base + ((tile.row + row) * job.base_row_stride + tile.col + col) * 2);
  }
  copies_end_group();
}

// Two rows of a thread's elements at a time, of fp32 one: enough loads in flight, and no register beyond the 128
// there are.
template <class Format>
LORA_MMAP_DEVICE bool finish_rows(const JobRow& job, const Tile& tile, const WeightStage& stage, int first,
                                  const float (&acc)[8][8]) {
  constexpr int kGroups = 2 * static_cast<int>(Format::kPerWord);
  constexpr i64 kNbytes = sizeof(typename Format::Bits);
  const Lanes lanes{thread_index_again()};
  WeightGroup<Format> base[kGroups];
  u32 suspect = 0;
#pragma unroll
  for (int i = 0; i < kGroups; ++i) {
    const i32 row = lanes.row(first + i / 2);
    const i32 col = lanes.col(i % 2);
    base[i] = {};
    if (!has_group(tile, row, col)) continue;
    if constexpr (kStaged<Format>) {
      const Words2 staged = stage.group[2 * first + i][threadIdx.x];
      base[i].word[0] = staged.x;
      base[i].word[1] = staged.y;
    } else {
      base[i] = load_weights<Format>(
          job.base + ((tile.row + row) * job.base_row_stride + tile.col + col) * kNbytes);
    }
  }
  WeightGroup<Format> sum[kGroups];
#pragma unroll
  for (int i = 0; i < kGroups; ++i) sum[i] = sum_group<Format>(base[i], &acc[first + i / 2][i % 2 * 4], suspect);
  bool overflow = false;
#pragma unroll
  for (int i = 0; i < kGroups; ++i) {
    const i32 row = lanes.row(first + i / 2);
    const i32 col = lanes.col(i % 2);
    if (!has_group(tile, row, col)) continue;
    if (suspect != 0) overflow |= settle_group<Format>(base[i], sum[i]);
    store_weights<Format>(
        job.weight + ((tile.row + row) * job.weight_row_stride + tile.col + col) * kNbytes, sum[i]);
  }
  return overflow;
}

template <class Format>
LORA_MMAP_DEVICE void finish_tile(const FuseParams& params, const JobRow& job, const Tile& tile,
                                  const WeightStage& stage, const float (&acc)[8][8]) {
  if constexpr (kStaged<Format>) copies_wait<0>();
  bool overflow = false;
#pragma unroll
  for (int row = 0; row < 8; row += static_cast<int>(Format::kPerWord)) overflow |= finish_rows<Format>(job, tile, stage, row, acc);
  if (overflow) pointer_to<u32>(params.flags)[job.flag] = 1;
}

// Everything that can be under way for a tile before the one before it is finished. Registers are too scarce to
// keep the tile itself.
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
  Share share{};
  begin_tile(params, index, 0, chunk, share);
  for (u32 owner = 0; index < params.n_tiles; index += gridDim.x) {
    const Tile tile = tile_at(jobs, params.n_jobs, kOrderedTile, index, owner);
    owner = tile.owner;
    if constexpr (kStaged<Format>) stage_weights(jobs[owner], tile, stage);
    float acc[8][8] = {};
    accumulate_tile(params, tile, index + gridDim.x, chunk, share, factors, acc);
    finish_tile<Format>(params, jobs[owner], tile, stage, acc);
  }
}

static_assert(sizeof(OrderedFactors) == kFactorsNbytes, "shared memory as launched");
static_assert(sizeof(WeightStage) == kWeightStageNbytes, "shared memory as launched");

}  // namespace lora_mmap::cuda
