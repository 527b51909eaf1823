// The bits of a tile's elements: read, hashed, written.
#pragma once

#include "cuda/kernels/block_sums.cuh"
#include "cuda/kernels/matrix.cuh"

namespace lora_mmap::cuda {

// As wide as the compute type, narrow elements in the lower half.
template <class T>
struct BitsOf;
template <>
struct BitsOf<float> {
  using Type = u32;
};
template <>
struct BitsOf<double> {
  using Type = u64;
};

// Four elements of `nbytes` each at an address that is aligned as one.
LORA_MMAP_DEVICE void load_group(u32 nbytes, u64 address, u32* bits) {
  if (nbytes == 2) {
    const Words2 w = *pointer_to<const Words2>(address);
    bits[0] = w.x & 0xFFFFU, bits[1] = w.x >> 16, bits[2] = w.y & 0xFFFFU, bits[3] = w.y >> 16;
  } else {
    const Words4 w = *pointer_to<const Words4>(address);
    bits[0] = w.x, bits[1] = w.y, bits[2] = w.z, bits[3] = w.w;
  }
}
LORA_MMAP_DEVICE void load_group(u32, u64 address, u64* bits) {
#pragma unroll
  for (int i = 0; i < 4; ++i) bits[i] = pointer_to<const u64>(address)[i];
}
LORA_MMAP_DEVICE void store_group(u32 nbytes, u64 address, const u32* bits) {
  if (nbytes == 2)
    *pointer_to<Words2>(address) = {bits[0] | bits[1] << 16, bits[2] | bits[3] << 16};
  else
    *pointer_to<Words4>(address) = {bits[0], bits[1], bits[2], bits[3]};
}
LORA_MMAP_DEVICE void store_group(u32, u64 address, const u64* bits) {
#pragma unroll
  for (int i = 0; i < 4; ++i) pointer_to<u64>(address)[i] = bits[i];
}

// use(address, the first of four in `bits`) for the groups of this thread that are in the tile.
template <class Bits, class Use>
LORA_MMAP_DEVICE void for_each_group(const Place& place, u32 nbytes, const Tile& tile, Patch<Bits>& bits,
                                     Use use) {
  const PatchLanes<Bits> lanes{thread_index_again()};
#pragma unroll
  for (int m = 0; m < Patch<Bits>::kRows; ++m)
#pragma unroll
    for (int n = 0; n < Patch<Bits>::kCols; n += 4)
      if (has(tile, lanes.row(m), lanes.col(n)))
        use(place.address + ((tile.row + lanes.row(m)) * place.row_stride + tile.col + lanes.col(n)) * nbytes,
            &bits.value[m][n]);
}

// By way of the stage, in the order that memory has neighbours in.
template <class Bits>
LORA_MMAP_DEVICE void load_anyhow(const Place& place, u32 nbytes, const Tile& tile, Stage<Bits>& stage,
                                  Patch<Bits>& bits) {
  constexpr i32 kEach = 8;
  constexpr i32 kStep = static_cast<i32>(kThreads);
  const bool by_rows = goes_by_rows(place.row_stride, place.col_stride);
  block_barrier();  // nobody reads what was there before any more
#pragma unroll 1
  for (i32 first = thread_index_again(); first < kPatchElements<Bits>; first += kEach * kStep) {
    u64 addresses[kEach];
#pragma unroll
    for (i32 k = 0; k < kEach; ++k) {
      const Walk to = Walk::at<Bits>(first + k * kStep, by_rows);
      const i64 at = (tile.row + to.m) * place.row_stride + (tile.col + to.n) * place.col_stride;
      addresses[k] = has(tile, to.m, to.n) ? place.address + at * nbytes : 0;
    }
    u64 loaded[kEach];
    load_raw(nbytes, false, addresses, loaded);
#pragma unroll
    for (i32 k = 0; k < kEach; ++k) {
      const Walk to = Walk::at<Bits>(first + k * kStep, by_rows);
      stage.at(to.m, to.n) = static_cast<Bits>(loaded[k]);
    }
  }
  block_barrier();
  stage.take(bits);
}

// Zeros where the tile has no elements.
template <class Bits>
LORA_MMAP_DEVICE void load_groups(const Place& place, u32 nbytes, const Tile& tile, Patch<Bits>& bits) {
  bits.clear();
  for_each_group(place, nbytes, tile, bits,
                 [&](u64 address, Bits* group) { load_group(nbytes, address, group); });
}
template <class Bits>
LORA_MMAP_DEVICE void load_bits(const Place& place, u32 nbytes, const Tile& tile, Stage<Bits>& stage,
                                Patch<Bits>& bits) {
  if (place.in_groups != 0)
    load_groups(place, nbytes, tile, bits);
  else
    load_anyhow(place, nbytes, tile, stage, bits);
}

LORA_MMAP_DEVICE void store_raw(u32 nbytes, u64 address, u64 bits) {
  if (nbytes == 2)
    *pointer_to<u16>(address) = static_cast<u16>(bits);
  else if (nbytes == 4)
    *pointer_to<u32>(address) = static_cast<u32>(bits);
  else
    *pointer_to<u64>(address) = bits;
}

template <class Bits>
LORA_MMAP_DEVICE void store_anyhow(const Place& place, u32 nbytes, const Tile& tile, Stage<Bits>& stage,
                                   Patch<Bits>& bits) {
  const bool by_rows = goes_by_rows(place.row_stride, place.col_stride);
  block_barrier();
  stage.put(bits);
  block_barrier();
#pragma unroll 4
  for (i32 i = thread_index_again(); i < kPatchElements<Bits>; i += static_cast<i32>(kThreads)) {
    const Walk to = Walk::at<Bits>(i, by_rows);
    if (!has(tile, to.m, to.n)) continue;
    const i64 at = (tile.row + to.m) * place.row_stride + (tile.col + to.n) * place.col_stride;
    store_raw(nbytes, place.address + at * nbytes, stage.at(to.m, to.n));
  }
}

template <class Bits>
LORA_MMAP_DEVICE void store_groups(const Place& place, u32 nbytes, const Tile& tile, Patch<Bits>& bits) {
  for_each_group(place, nbytes, tile, bits,
                 [&](u64 address, const Bits* group) { store_group(nbytes, address, group); });
}
template <class Bits>
LORA_MMAP_DEVICE void store_bits(const Place& place, u32 nbytes, const Tile& tile, Stage<Bits>& stage,
                                 Patch<Bits>& bits) {
  if (place.in_groups != 0)
    store_groups(place, nbytes, tile, bits);
  else
    store_anyhow(place, nbytes, tile, stage, bits);
}

LORA_MMAP_DEVICE u32 mix(u32 hash, u32 word) {
  hash = (hash ^ word) * 0x85EBCA77U;
  return hash ^ hash >> 15;
}
LORA_MMAP_DEVICE u64 mix(u64 hash, u64 word) {
  hash = (hash ^ word) * 0x9FB21C651E98DF25ull;
  return hash ^ hash >> 29;
}

// Of all elements of a tile. Every thread's go through a chain of bijections as wide as they are, the ends of
// the chains through another, and those are added: a change of any one element changes the hash for certain.
template <class Bits>
LORA_MMAP_DEVICE u64 hash_tile(Patch<Bits>& bits) {
  const u32 thread = threadIdx.x;
  Bits hash = static_cast<Bits>(0x9E3779B1U * (2 * thread + 1));
  bits.for_each([&](Bits& each, int, int) { hash = mix(hash, each); });
  const u64 end = mix(mix(u64{thread}, static_cast<u64>(hash)), u64{thread});
  return sum_over_block(end, reinterpret_cast<u64*>(shared_memory()));
}

}  // namespace lora_mmap::cuda
