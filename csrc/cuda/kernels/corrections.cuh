// The corrections of a tile: what has to be done to the elements that undoing alone does not bring back.
//
// Elements are numbered thread after thread, the 32 of each in the order of its patch. Corrections ascend:
// - which elements: where fewer than kListed, their numbers, u16 each, behind the escapes; otherwise a bit
//   for every element of a tile, before them;
// - escapes: the pristine bits of those whose byte is kEscape, as wide as the weight's elements;
// - a byte for each: see byte_of_steps.
#pragma once

#include "cuda/kernels/bits.cuh"
#include "cuda/kernels/undo.h"

namespace lora_mmap::cuda {

constexpr u32 kListed = 512;  // from there on the bits take no more than the numbers
constexpr u32 kMaskNbytes = static_cast<u32>(kPatchElements<float>) / 8;
static_assert(kListed * 2 == kMaskNbytes && kPatchElements<float> == kThreads * 32);

// Where the corrections of one tile lie.
struct Coded {
  u64 address;
  u32 count;
  u32 escapes;
  u32 nbytes;  // of an element, 2 or 4

  LORA_MMAP_DEVICE bool is_list() const { return count < kListed; }
  LORA_MMAP_DEVICE u64 escape(u32 i) const { return address + (is_list() ? 0 : kMaskNbytes) + i * nbytes; }
  LORA_MMAP_DEVICE u64 number(u32 i) const { return escape(escapes) + i * 2; }
  LORA_MMAP_DEVICE u64 byte(u32 i) const { return escape(escapes) + (is_list() ? count * 2 : 0) + i; }
  LORA_MMAP_DEVICE u32 words() const { return static_cast<u32>((byte(count) - address + 3) / 4); }
};

// One thread's.
struct Share32 {
  u32 mask;    // which of its elements
  u32 first;   // the rank of its first among all
  u32 escape;  // likewise among the escapes
};

// Needs the numbers, or the mask, in shared memory; the first rank is found in the list, or counted.
LORA_MMAP_DEVICE Share32 share_of(const Coded& coded, const u32* shared) {
  const u32 begin = threadIdx.x * 32;
  if (!coded.is_list()) return {shared[threadIdx.x], 0, 0};
  const u16* numbers = reinterpret_cast<const u16*>(shared);
  u32 low = 0;
  u32 high = coded.count;
#pragma unroll 1
  while (low < high) {
    const u32 middle = (low + high) / 2;
    if (numbers[middle] < begin)
      low = middle + 1;
    else
      high = middle;
  }
  Share32 share{0, low, 0};
#pragma unroll 1
  for (; low < coded.count && numbers[low] < begin + 32; ++low) share.mask |= 1U << (numbers[low] - begin);
  return share;
}

LORA_MMAP_DEVICE Share32 load_share32(const Coded& coded) {
  u32* const shared = reinterpret_cast<u32*>(shared_memory());
  u32* const sums = shared + kMaskNbytes / 4;
  block_barrier();
  if (coded.is_list()) {
#pragma unroll 1
    for (u32 i = threadIdx.x; i < coded.count; i += kThreads)
      reinterpret_cast<u16*>(shared)[i] = *pointer_to<const u16>(coded.number(i));
  } else {
    shared[threadIdx.x] = *pointer_to<const u32>(coded.address + threadIdx.x * 4);
  }
  block_barrier();
  Share32 share = share_of(coded, shared);
  if (!coded.is_list()) share.first = rank_in_block(bits_set(share.mask), sums).before;
  if (coded.escapes == 0) return share;
  u32 escapes = 0;
  const u32 own = bits_set(share.mask);
#pragma unroll 1
  for (u32 i = 0; i < own; ++i)
    escapes += *pointer_to<const u8>(coded.byte(share.first + i)) == kEscape ? 1U : 0U;
  share.escape = rank_in_block(escapes, sums).before;
  return share;
}

LORA_MMAP_DEVICE u32 load_escape(const Coded& coded, u32 i) {
  return coded.nbytes == 2 ? *pointer_to<const u16>(coded.escape(i))
                           : *pointer_to<const u32>(coded.escape(i));
}

// `values`, which undoing made, become the pristine ones.
LORA_MMAP_DEVICE void correct(const Coded& coded, Patch<u32>& values) {
  if (coded.count == 0) return;
  Share32 share = load_share32(coded);
  u32 bit = 1;
  values.for_each([&](u32& each, int, int) {
    if (share.mask & bit) {
      const u32 byte = *pointer_to<const u8>(coded.byte(share.first++));
      each = byte == kEscape ? load_escape(coded, share.escape++)
                             : apply_steps(coded.nbytes, each, steps_of_byte(byte));
    }
    bit <<= 1;
  });
}

// What is between the values that undoing will make and the pristine ones, as steps; ranks over the block.
struct Corrections {
  Share32 share;
  u32 count;
  u32 escapes;
};

LORA_MMAP_DEVICE Corrections count_corrections(Patch<u32>& steps) {
  u32 mask = 0;
  u32 escapes = 0;
  u32 bit = 1;
  steps.for_each([&](u32& each, int, int) {
    if (each != 0) mask |= bit;
    if (each != 0 && byte_of_steps(each) == kEscape) ++escapes;
    bit <<= 1;
  });
  const Ranked rank = rank_in_block(bits_set(mask) | escapes << 16, reinterpret_cast<u32*>(shared_memory()));
  return {{mask, rank.before & 0xFFFFU, rank.before >> 16}, rank.total & 0xFFFFU, rank.total >> 16};
}

// `pristine` as in Kept.
template <class Kept>
LORA_MMAP_DEVICE void encode(const Coded& coded, Share32 share, Patch<u32>& steps, const Kept& pristine) {
  if (coded.count == 0) return;
  if (!coded.is_list()) *pointer_to<u32>(coded.address + threadIdx.x * 4) = share.mask;
  u32 number = threadIdx.x * 32;
  steps.for_each([&](u32& each, int m, int n) {
    if (each != 0) {
      const u32 byte = byte_of_steps(each);
      if (coded.is_list()) *pointer_to<u16>(coded.number(share.first)) = static_cast<u16>(number);
      *pointer_to<u8>(coded.byte(share.first++)) = static_cast<u8>(byte);
      if (byte == kEscape) store_raw(coded.nbytes, coded.escape(share.escape++), pristine.at(m, n));
    }
    ++number;
  });
}

}  // namespace lora_mmap::cuda
