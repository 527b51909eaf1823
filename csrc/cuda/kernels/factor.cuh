// Elements of LoRA factors, as they lie in memory and as fp32.
#pragma once

#include "cuda/kernels/arithmetic.h"
#include "cuda/kernels/device.cuh"
#include "cuda/kernels/table.h"
#include "cuda/kernels/tiles.cuh"

namespace lora_mmap::cuda {

LORA_MMAP_DEVICE u32 element_nbytes(u32 type) {
  return type <= kBF16 ? 2 : type == kF32 ? 4 : type == kF64 ? 8 : 1;
}

template <class Bits>
LORA_MMAP_DEVICE Bits load_bits(u64 address, bool bytewise) {
  if (!bytewise) return *pointer_to<const Bits>(address);
  Bits bits = 0;
  for (u32 i = 0; i < sizeof(Bits); ++i)
    bits |= static_cast<Bits>(static_cast<Bits>(*pointer_to<const u8>(address + i)) << (8 * i));
  return bits;
}

// Four elements that follow each other in a tile: in pairs as they are if their type is F16 or BF16, otherwise
// rounded to fp32. What is not there is zero.
struct Group {
  u32 word[4];
};

LORA_MMAP_DEVICE bool is_paired(u32 type) {
  return type <= kBF16;
}

LORA_MMAP_DEVICE float group_element(u32 type, const Group& group, int i) {
  if (type == kF16) return F16::widen(group.word[i / 2], i % 2);
  if (type == kBF16) return BF16::widen(group.word[i / 2], i % 2);
  return float_of(group.word[i]);
}

// The element at `address`: its bits if it is paired, those of its value in fp32 otherwise.
LORA_MMAP_DEVICE u32 load_element(u32 type, u64 address, bool bytewise) {
  if (is_paired(type)) return load_bits<u16>(address, bytewise);
  if (type == kF32) return load_bits<u32>(address, bytewise);
  if (type == kF64) return bits_of(static_cast<float>(double_of(load_bits<u64>(address, bytewise))));
  return bits_of(f8_to_float(type, *pointer_to<const u8>(address)));
}

LORA_MMAP_DEVICE double load_element_as_double(u32 type, u64 address, bool bytewise) {
  if (type == kF64) return double_of(load_bits<u64>(address, bytewise));
  const u32 bits = load_element(type, address, bytewise);
  if (type == kF16) return static_cast<double>(F16::widen(bits, 0));
  if (type == kBF16) return static_cast<double>(BF16::widen(bits, 0));
  return static_cast<double>(float_of(bits));
}

// An aligned group of which all four elements exist.
LORA_MMAP_DEVICE Group load_aligned_group(u32 type, u64 address) {
  if (is_paired(type)) {
    const Words2 w = load_constant_8(address);
    return {{w.x, w.y, 0, 0}};
  }
  if (type == kF32) {
    const Words4 w = load_constant_16(address);
    return {{w.x, w.y, w.z, w.w}};
  }
  Group group;
  if (type == kF64) {
    for (int i = 0; i < 4; ++i) group.word[i] = load_element(kF64, address + 8 * i, false);
    return group;
  }
  const u32 word = load_constant_4(address);
  for (int i = 0; i < 4; ++i) group.word[i] = bits_of(f8_to_float(type, static_cast<u8>(word >> (8 * i))));
  return group;
}

// The first `count` elements of a group of the row at `row`, whose first is number `index`; with a map, element
// i of the group is number map[index + i].
LORA_MMAP_DEVICE Group load_group(u32 type, u64 row, i64 index, u64 map, i32 count, bool aligned, bool bytewise) {
  const u32 nbytes = element_nbytes(type);
  if (aligned && count >= 4) return load_aligned_group(type, row + index * nbytes);
  Group group{};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (i >= count) continue;
    const i64 element = map ? pointer_to<const i32>(map)[index + i] : index + i;
    const u32 bits = load_element(type, row + element * nbytes, bytewise);
    if (is_paired(type))
      group.word[i / 2] |= bits << (16 * (i % 2));
    else
      group.word[i] = bits;
  }
  return group;
}

}  // namespace lora_mmap::cuda
