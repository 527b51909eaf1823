// Fusion in the contract's order, for weights whose rows lie in groups of four: those of nearly every model.
#pragma once

#include "cuda/kernels/accumulate.cuh"
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

// Two rows of a thread's elements at a time: enough loads in flight, and no register beyond the 128 there are.
template <class Format>
LORA_MMAP_DEVICE bool finish_rows(const JobRow& job, const Tile& tile, const WeightStage& stage, int first,
                                  const float (&acc)[8][8]) {
  constexpr i64 kNbytes = sizeof(typename Format::Bits);
  const Lanes lanes{thread_index_again()};
  WeightGroup<Format> base[4];
  u32 suspect = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
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
  WeightGroup<Format> sum[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) sum[i] = sum_group<Format>(base[i], &acc[first + i / 2][i % 2 * 4], suspect);
  bool overflow = false;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
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
  for (int row = 0; row < 8; row += 2) overflow |= finish_rows<Format>(job, tile, stage, row, acc);
  if (overflow) pointer_to<u32>(params.flags)[job.flag] = 1;
}

template <class Format>
LORA_MMAP_DEVICE void fuse_ordered(const FuseParams& params) {
  const JobRow* jobs = pointer_to<const JobRow>(params.jobs);
  OrderedFactors& factors = *reinterpret_cast<OrderedFactors*>(shared_memory());
  WeightStage& stage = *reinterpret_cast<WeightStage*>(shared_memory() + sizeof(OrderedFactors));
  u32 index = blockIdx.x;
  if (index >= params.n_tiles) return;
  Chunk chunk;
  StagedShare share{};
  begin_tile<true>(params, index, 0, chunk, share);
  for (u32 owner = 0; index < params.n_tiles; index += gridDim.x) {
    const Tile tile = tile_at(jobs, params.n_jobs, kOrderedTile, index, owner);
    owner = tile.owner;
    if constexpr (kStaged<Format>) stage_weights(jobs[owner], tile, stage);
    float acc[8][8] = {};
    accumulate_tile<true>(params, tile, index + gridDim.x, chunk, share, factors, acc);
    finish_tile<Format>(params, jobs[owner], tile, stage, acc);
  }
}

static_assert(sizeof(OrderedFactors) == kFactorsNbytes, "shared memory as launched");
static_assert(sizeof(WeightStage) == kWeightStageNbytes, "shared memory as launched");

}  // namespace lora_mmap::cuda
