// Weights: read, added to, rounded once, written; four neighbours of a row at a time where they lie so.
#pragma once

#include "cuda/kernels/arithmetic.h"
#include "cuda/kernels/device.cuh"
#include "cuda/kernels/table.h"
#include "cuda/kernels/tiles.cuh"

namespace lora_mmap::cuda {

// Calls for the lines of a tile that this block will come to next. The columns follow each other.
LORA_MMAP_DEVICE void prefetch_tile(const JobRow& job, const Tile& tile, TileSize size) {
  const u32 nbytes = job.type == kF32 ? 4 : 2;
  const u32 across = size.cols * nbytes / 128;
#pragma unroll 1
  for (u32 line = static_cast<u32>(thread_index_again()); line < size.rows * across; line += kThreads) {
    const i32 row = static_cast<i32>(line / across);
    const i32 col = static_cast<i32>(line % across * 128 / nbytes);
    if (row < tile.rows() && col < tile.cols())
      prefetch_line(job.base + ((tile.row + row) * job.base_row_stride + tile.col + col) * nbytes);
  }
}

template <class Format>
struct WeightGroup {
  static constexpr int kWords = 4 / static_cast<int>(Format::kPerWord);
  u32 word[kWords];
};

template <class Format>
LORA_MMAP_DEVICE WeightGroup<Format> load_weights(u64 address) {
  if constexpr (Format::kPerWord == 2) {
    const Words2 w = *pointer_to<const Words2>(address);
    return {{w.x, w.y}};
  } else {
    const Words4 w = *pointer_to<const Words4>(address);
    return {{w.x, w.y, w.z, w.w}};
  }
}

template <class Format>
LORA_MMAP_DEVICE void store_weights(u64 address, const WeightGroup<Format>& group) {
  if constexpr (Format::kPerWord == 2)
    *pointer_to<Words2>(address) = {group.word[0], group.word[1]};
  else
    *pointer_to<Words4>(address) = {group.word[0], group.word[1], group.word[2], group.word[3]};
}

// base + acc; `suspect` becomes other than 0 where that is not finite and settle_group has to look.
template <class Format>
LORA_MMAP_DEVICE WeightGroup<Format> sum_group(const WeightGroup<Format>& base, const float* acc,
                                               u32& suspect) {
  WeightGroup<Format> sum;
#pragma unroll
  for (int i = 0; i < WeightGroup<Format>::kWords; ++i) {
    sum.word[i] = sum_word<Format>(base.word[i], acc + i * static_cast<int>(Format::kPerWord));
    suspect |= not_finite<Format>(sum.word[i]);
  }
  return sum;
}

// Gives back the base's bits where the base is not finite; true if another result is not.
template <class Format>
LORA_MMAP_DEVICE bool settle_group(const WeightGroup<Format>& base, WeightGroup<Format>& sum) {
  u32 bad = 0;
#pragma unroll
  for (int i = 0; i < WeightGroup<Format>::kWords; ++i) {
    bad |= not_finite<Format>(sum.word[i]) & ~not_finite<Format>(base.word[i]);
    sum.word[i] = keep_not_finite<Format>(base.word[i], sum.word[i]);
  }
  return bad != 0;
}

// One element, wherever it lies, from the bits of its base. True if it overflows.
template <class Format>
LORA_MMAP_DEVICE bool store_fused(u64 weight, u32 base, float acc) {
  const float accs[2] = {acc, 0.0F};  // beside an element of 16 bits stands a zero
  const u32 sum = sum_word<Format>(base, accs);
  *pointer_to<typename Format::Bits>(weight) =
      static_cast<typename Format::Bits>(keep_not_finite<Format>(base, sum));
  return (not_finite<Format>(sum) & ~not_finite<Format>(base)) != 0;
}

// The same in fp64. Bits, not numbers: what is not finite passes through unchanged.
LORA_MMAP_DEVICE bool store_fused_f64(u64 weight, u64 base, double acc) {
  u64 bits = base;
  bool overflow = false;
  if (is_finite(double_of(bits))) {
    bits = bits_of(add(double_of(bits), acc));
    overflow = !is_finite(double_of(bits));
  }
  *pointer_to<u64>(weight) = bits;
  return overflow;
}

template <class Format>
LORA_MMAP_DEVICE bool fuse_element(u64 weight, u64 base, float acc) {
  return store_fused<Format>(weight, *pointer_to<const typename Format::Bits>(base), acc);
}

}  // namespace lora_mmap::cuda
