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

LORA_MMAP_DEVICE bool is_paired(u32 type) {
  return type <= kBF16;
}

template <u32 kType>
LORA_MMAP_DEVICE float load_element(u64 address, bool bytewise) {
  if constexpr (kType == kF16) return F16::widen(load_bits<u16>(address, bytewise), 0);
  if constexpr (kType == kBF16) return BF16::widen(load_bits<u16>(address, bytewise), 0);
  if constexpr (kType == kF32) return float_of(load_bits<u32>(address, bytewise));
  if constexpr (kType == kF64) return static_cast<float>(double_of(load_bits<u64>(address, bytewise)));
  return f8_to_float(kType, *pointer_to<const u8>(address));
}

LORA_MMAP_DEVICE double load_element_as_double(u32 type, u64 address, bool bytewise) {
  switch (type) {
    case kF16:
      return static_cast<double>(load_element<kF16>(address, bytewise));
    case kBF16:
      return static_cast<double>(load_element<kBF16>(address, bytewise));
    case kF32:
      return static_cast<double>(load_element<kF32>(address, bytewise));
    case kF64:
      return double_of(load_bits<u64>(address, bytewise));
    default:
      return static_cast<double>(f8_to_float(type, *pointer_to<const u8>(address)));
  }
}

// Where element [row, col] of A, or [row, rank] of B, lies.
LORA_MMAP_DEVICE u64 down_address(const TermRow& term, i64 rank, i32 col) {
  const i64 mapped = term.col_map ? pointer_to<const i32>(term.col_map)[col] : col;
  return term.down + (rank * term.down_row_stride + mapped) * element_nbytes(term.down_type);
}
LORA_MMAP_DEVICE u64 up_address(const TermRow& term, i32 row, i32 rank) {
  const i64 mapped = term.row_map ? pointer_to<const i32>(term.row_map)[row] : row;
  return term.up + (mapped * term.up_row_stride + rank) * element_nbytes(term.up_type);
}

}  // namespace lora_mmap::cuda
