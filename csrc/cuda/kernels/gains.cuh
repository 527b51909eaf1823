// DoRA's factors: sums of squares of base + change over rows or columns, then magnitude / norm. The order of
// the sums is docs/numerics.md's.
#pragma once

#include "cuda/kernels/terms.cuh"

namespace lora_mmap::cuda {

LORA_MMAP_DEVICE double add_square(double sum, double value) {
  return add(sum, multiply(value, value));
}

// Of a tile's rows or columns, from one end of the job to the other: thread t has lane t % 16 of the rows t /
// 16 and every sixteenth after that, or column t.
template <class T>
struct NormSums {
  static constexpr i32 kRowStep = static_cast<i32>(kThreads / kNormLanes);
  static constexpr int kEach = static_cast<int>(kPatchTile<T>.rows) / kRowStep;
  double sum[kEach] = {};

  LORA_MMAP_DEVICE void add_rows(const Tile& tile, Stage<T>& values) {
    const i32 thread = thread_index_again();
#pragma unroll
    for (int k = 0; k < kEach; ++k)
#pragma unroll 1
      for (i32 n = thread % static_cast<i32>(kNormLanes); n < tile.cols(); n += static_cast<i32>(kNormLanes))
        sum[k] = add_square(sum[k], values.at(thread / static_cast<i32>(kNormLanes) + k * kRowStep, n));
  }
  LORA_MMAP_DEVICE void add_columns(const Tile& tile, Stage<T>& values) {
    const i32 thread = thread_index_again();
    if (thread >= tile.cols()) return;
#pragma unroll 1
    for (i32 m = 0; m < tile.rows(); ++m) sum[0] = add_square(sum[0], values.at(m, thread));
  }

  // The lanes of each row, in order.
  LORA_MMAP_DEVICE void write_rows(const Tile& tile, double* out) {
    auto& lanes = *reinterpret_cast<double (*)[kPatchTile<T>.rows][kNormLanes]>(shared_memory());
    const i32 thread = thread_index_again();
    block_barrier();
#pragma unroll
    for (int k = 0; k < kEach; ++k)
      lanes[thread / static_cast<i32>(kNormLanes) + k * kRowStep][thread % static_cast<i32>(kNormLanes)] =
          sum[k];
    block_barrier();
    if (thread >= tile.rows()) return;
    double total = 0;
#pragma unroll 1
    for (u32 lane = 0; lane < kNormLanes; ++lane) total = add(total, lanes[thread][lane]);
    out[thread] = total;
  }
  LORA_MMAP_DEVICE void write_columns(const Tile& tile, double* out) {
    if (thread_index_again() < tile.cols()) out[thread_index_again()] = sum[0];
  }
};

LORA_MMAP_DEVICE Tile tile_from(const GainsRow& job, TileSize size, u32 owner, i32 row, i32 col) {
  const i64 rows = job.rows - row;
  const i64 cols = job.cols - col;
  return {owner, row, col,
          static_cast<u32>(rows < size.rows ? rows : size.rows) |
              static_cast<u32>(cols < size.cols ? cols : size.cols) << 16};
}

// Leaves base + change of the tile in the stage, behind a barrier.
template <class T>
LORA_MMAP_DEVICE void stage_values(const AnyTermRow& term, const TermTile& at) {
  Patch<T> change;
  change.clear();
  add_change(term, at, change);
  Patch<T> base;
  load_whole(at.base, at.tile, at.stage<T>(), base);
  change.for_each([&](T& each, int m, int n) { each = add(base.value[m][n], each); });
  block_barrier();
  at.stage<T>().put(change);
  block_barrier();
}

template <class T>
LORA_MMAP_DEVICE void sum_band(const GainsParams& params, u32 owner, i32 band) {
  constexpr TileSize kSize = kPatchTile<T>;
  const GainsRow& job = pointer_to<const GainsRow>(params.jobs)[owner];
  const AnyTermRow& term = pointer_to<const AnyTermRow>(params.terms)[job.term];
  const bool by_columns = job.by_columns != 0;
  const i64 first = static_cast<i64>(band) * (by_columns ? kSize.cols : kSize.rows);
  const i64 end = by_columns ? job.rows : job.cols;
  double* const out = pointer_to<double>(params.sums) + job.first_sum + first;
  NormSums<T> sums;
  Tile tile{};
#pragma unroll 1
  for (i64 along = 0; along < end; along += by_columns ? kSize.rows : kSize.cols) {
    tile = tile_from(job, kSize, owner, static_cast<i32>(by_columns ? along : first),
                     static_cast<i32>(by_columns ? first : along));
    const TermTile at{{job.base, job.base_row_stride, job.base_col_stride, 0, 0, job.type, false}, tile};
    stage_values<T>(term, at);
    if (by_columns)
      sums.add_columns(tile, at.stage<T>());
    else
      sums.add_rows(tile, at.stage<T>());
  }
  if (by_columns)
    sums.write_columns(tile, out);
  else
    sums.write_rows(tile, out);
}

template <class T>
LORA_MMAP_DEVICE void sum_norms(const GainsParams& params) {
  const GainsRow* jobs = pointer_to<const GainsRow>(params.jobs);
  u32 owner = 0;
  for (u32 index = blockIdx.x; index < params.n_tiles; index += gridDim.x) {
    owner = owner_of(jobs, params.n_jobs, index, owner);
    sum_band<T>(params, owner, static_cast<i32>(index - jobs[owner].first_tile));
  }
}

// The sum of group `index`: its columns in the order of memory.
LORA_MMAP_DEVICE double sum_of_group(const GainsRow& job, const double* sums, u32 index) {
  if (job.rows == 0 || job.cols == 0) return 0;
  if (!job.groups) return sums[index];
  double sum = 0;
  for (i64 n = 0; n < job.cols; ++n)
    if (pointer_to<const u32>(job.groups)[n] == index) sum = add(sum, sums[n]);
  return sum;
}

// False where a norm or what comes out is not finite.
LORA_MMAP_DEVICE bool write_gain(const GainsRow& job, u32 index, double sum) {
  const i64 from = mapped(job.magnitude_map, static_cast<i32>(index));
  const double magnitude = load_element_as_double(
      job.magnitude_type, job.magnitude + from * element_nbytes(job.magnitude_type), job.magnitude_bytes);
  const double gain = sum == 0 ? 0 : divide(magnitude, square_root(sum));
  if (job.type == kF64) {
    pointer_to<double>(job.out)[index] = gain;
    return is_finite(sum) && is_finite(gain);
  }
  const float rounded = static_cast<float>(gain);
  pointer_to<float>(job.out)[index] = rounded;
  return is_finite(sum) && is_finite(rounded);
}

LORA_MMAP_DEVICE void make_gains(const GainsParams& params) {
  const GainsRow* jobs = pointer_to<const GainsRow>(params.jobs);
  u32 owner = 0;
  for (u32 tile = blockIdx.x; tile < params.n_tiles; tile += gridDim.x) {
    owner = owner_of(jobs, params.n_jobs, tile, owner);
    const GainsRow& job = jobs[owner];
    const u32 index = (tile - job.first_tile) * kThreads + threadIdx.x;
    if (index >= job.n_groups) continue;
    const double sum = sum_of_group(job, pointer_to<const double>(params.sums) + job.first_sum, index);
    if (!write_gain(job, index, sum)) pointer_to<u32>(params.flags)[job.flag] = 1;
  }
}

static_assert(sizeof(double) * kTermsTile.rows * kNormLanes <= kTermsSharedNbytes,
              "it takes the stage's place");
static_assert(kTermsTile.cols <= kThreads && kTermsTile.rows <= kThreads, "a thread for each");

}  // namespace lora_mmap::cuda
