// Weights, four neighbours of a row at a time: read, added to, rounded once, written.
#pragma once

#include "cuda/kernels/arithmetic.h"
#include "cuda/kernels/device.cuh"
#include "cuda/kernels/table.h"
#include "cuda/kernels/tiles.cuh"

namespace lora_mmap::cuda {

template <class Format>
struct WeightGroup {
  static constexpr int kWords = 4 / Format::kPerWord;
  u32 word[kWords];
};

// Where a group lies: `count` of its elements exist, `aligned` if they are four and may be accessed at once.
struct Place {
  u64 address;
  i64 col_stride;  // in elements
  i32 count;
  bool aligned;
};

template <class Format>
LORA_MMAP_DEVICE Place place_in(u64 data, i64 row_stride, i64 col_stride, bool groups, i64 row, i64 col, i32 count) {
  const i64 index = row * row_stride + col * col_stride;
  return {data + index * static_cast<i64>(sizeof(typename Format::Bits)), col_stride, count, groups && count == 4};
}

template <class Format>
LORA_MMAP_DEVICE WeightGroup<Format> load_weights(const Place& place) {
  using Bits = typename Format::Bits;
  WeightGroup<Format> group;
  if (place.aligned) {
    if constexpr (Format::kPerWord == 2) {
      const Words2 w = *pointer_to<const Words2>(place.address);
      group = {{w.x, w.y}};
    } else {
      const Words4 w = *pointer_to<const Words4>(place.address);
      group = {{w.x, w.y, w.z, w.w}};
    }
    return group;
  }
#pragma unroll
  for (u32 i = 0; i < 4; ++i) {
    const u32 at = i / Format::kPerWord;
    const u32 shift = i % Format::kPerWord * 16;
    if (shift == 0) group.word[at] = 0;
    if (static_cast<i32>(i) < place.count)
      group.word[at] |= static_cast<u32>(pointer_to<const Bits>(place.address)[i * place.col_stride]) << shift;
  }
  return group;
}

template <class Format>
LORA_MMAP_DEVICE void store_weights(const Place& place, const WeightGroup<Format>& group) {
  using Bits = typename Format::Bits;
  if (place.aligned) {
    if constexpr (Format::kPerWord == 2)
      *pointer_to<Words2>(place.address) = {group.word[0], group.word[1]};
    else
      *pointer_to<Words4>(place.address) = {group.word[0], group.word[1], group.word[2], group.word[3]};
    return;
  }
#pragma unroll
  for (u32 i = 0; i < 4; ++i)
    if (static_cast<i32>(i) < place.count)
      pointer_to<Bits>(place.address)[i * place.col_stride] =
          static_cast<Bits>(group.word[i / Format::kPerWord] >> (i % Format::kPerWord * 16));
}

// The sum of base and acc; where it is finite throughout, the result.
template <class Format>
LORA_MMAP_DEVICE WeightGroup<Format> sum_group(const WeightGroup<Format>& base, const float* acc, u32& suspect) {
  WeightGroup<Format> sum;
#pragma unroll
  for (int i = 0; i < WeightGroup<Format>::kWords; ++i) {
    sum.word[i] = sum_word<Format>(base.word[i], acc + i * Format::kPerWord);
    suspect |= not_finite<Format>(sum.word[i]);
  }
  return sum;
}

// Gives back the base's bits where the base is not finite; true if another of the first `count` results is not.
template <class Format>
LORA_MMAP_DEVICE bool settle_group(const WeightGroup<Format>& base, WeightGroup<Format>& sum, i32 count) {
  bool overflow = false;
#pragma unroll
  for (int i = 0; i < WeightGroup<Format>::kWords; ++i) {
    const u32 bad = not_finite<Format>(sum.word[i]) & ~not_finite<Format>(base.word[i]);
    sum.word[i] = keep_not_finite<Format>(base.word[i], sum.word[i]);
#pragma unroll
    for (u32 k = 0; k < Format::kPerWord; ++k) {
      const bool exists = static_cast<i32>(i * Format::kPerWord + k) < count;
      overflow |= exists && (bad >> (32 / Format::kPerWord * (k + 1) - 1) & 1u);
    }
  }
  return overflow;
}

}  // namespace lora_mmap::cuda
