// The arithmetic contract (docs/numerics.md), one operation at a time, for the GPU's compilers and the host's
// alike. Everything rounds to nearest even and keeps subnormals; only the bits of a NaN that is computed may
// differ between them, and such a result is an overflow.
#pragma once

#include "cuda/kernels/device.cuh"
#include "cuda/kernels/table.h"

namespace lora_mmap::cuda {

#if defined(LORA_MMAP_HARDWARE_CONVERSIONS)

LORA_MMAP_BOTH float float_of(u32 bits) {
  return __uint_as_float(bits);
}
LORA_MMAP_BOTH u32 bits_of(float value) {
  return __float_as_uint(value);
}
LORA_MMAP_BOTH double double_of(u64 bits) {
  return __longlong_as_double(static_cast<i64>(bits));
}
LORA_MMAP_BOTH u64 bits_of(double value) {
  return static_cast<u64>(__double_as_longlong(value));
}
LORA_MMAP_BOTH float fused_multiply_add(float a, float b, float c) {
  return __fmaf_rn(a, b, c);
}
LORA_MMAP_BOTH double fused_multiply_add(double a, double b, double c) {
  return __fma_rn(a, b, c);
}
LORA_MMAP_BOTH float multiply(float a, float b) {
  return __fmul_rn(a, b);
}
LORA_MMAP_BOTH double multiply(double a, double b) {
  return __dmul_rn(a, b);
}
LORA_MMAP_BOTH float add(float a, float b) {
  return __fadd_rn(a, b);
}
LORA_MMAP_BOTH double add(double a, double b) {
  return __dadd_rn(a, b);
}
LORA_MMAP_BOTH double divide(double a, double b) {
  return __ddiv_rn(a, b);
}
LORA_MMAP_BOTH double square_root(double value) {
  return __dsqrt_rn(value);
}

#else

LORA_MMAP_BOTH float float_of(u32 bits) {
  return __builtin_bit_cast(float, bits);
}
LORA_MMAP_BOTH u32 bits_of(float value) {
  return __builtin_bit_cast(u32, value);
}
LORA_MMAP_BOTH double double_of(u64 bits) {
  return __builtin_bit_cast(double, bits);
}
LORA_MMAP_BOTH u64 bits_of(double value) {
  return __builtin_bit_cast(u64, value);
}
LORA_MMAP_BOTH float fused_multiply_add(float a, float b, float c) {
  return __builtin_fmaf(a, b, c);
}
LORA_MMAP_BOTH double fused_multiply_add(double a, double b, double c) {
  return __builtin_fma(a, b, c);
}
// Never contracted: the host compiles with -ffp-contract=off.
LORA_MMAP_BOTH float multiply(float a, float b) {
  return a * b;
}
LORA_MMAP_BOTH double multiply(double a, double b) {
  return a * b;
}
LORA_MMAP_BOTH float add(float a, float b) {
  return a + b;
}
LORA_MMAP_BOTH double add(double a, double b) {
  return a + b;
}
LORA_MMAP_BOTH double divide(double a, double b) {
  return a / b;
}
LORA_MMAP_BOTH double square_root(double value) {
  return __builtin_sqrt(value);
}

#endif

LORA_MMAP_BOTH float bf16_to_float(u16 bits) {
  return float_of(static_cast<u32>(bits) << 16);
}

// An 8-bit float. Its fields are those of an fp32 with a smaller bias and fewer bits, so a shift and an exact
// product by a power of two make one of it, subnormals included.
template <int kMantissaBits, int kBias, bool kFnuz>
LORA_MMAP_BOTH float f8_to_float(u8 bits) {
  constexpr u32 kNan = 0x7FC00000u;
  constexpr u32 kInfinity = 0x7C;  // E5M2's; above it its NaNs
  const u32 sign = static_cast<u32>(bits & 0x80u) << 24;
  const u32 magnitude = bits & 0x7Fu;
  if (kFnuz && bits == 0x80u) return float_of(kNan);
  if (!kFnuz && kMantissaBits == 3 && magnitude == 0x7Fu) return float_of(kNan);
  if (!kFnuz && kMantissaBits == 2 && magnitude >= kInfinity)
    return float_of(magnitude > kInfinity ? kNan : sign | 0x7F800000u);
  const float rebias = float_of(static_cast<u32>(127 - kBias + 127) << 23);
  return multiply(float_of(sign | (magnitude << (23 - kMantissaBits))), rebias);
}

LORA_MMAP_BOTH float f8_to_float(u32 type, u8 bits) {
  switch (type) {
    case kE4M3:
      return f8_to_float<3, 7, false>(bits);
    case kE5M2:
      return f8_to_float<2, 15, false>(bits);
    case kE4M3FNUZ:
      return f8_to_float<3, 8, true>(bits);
    default:
      return f8_to_float<2, 16, true>(bits);
  }
}

// The weight types. A 32-bit word holds kPerWord of the narrow ones, the first in its lower half. kCarry
// brings the exponent of what is not finite to overflow into the bit above, for each element of a word at
// once.
struct F16 {
  using Bits = u16;
  static constexpr u32 kPerWord = 2;
  static constexpr u32 kExponents = 0x7C007C00u;
  static constexpr u32 kCarry = 0x04000400u;
  static constexpr u32 kSigns = 0x80008000u;
  static LORA_MMAP_BOTH float widen(u32 word, int i) {
    return f16_to_float(static_cast<u16>(word >> (16 * i)));
  }
  static LORA_MMAP_BOTH u32 round(const float* sums) { return round_pair_to_f16(sums[0], sums[1]); }
};

struct BF16 {
  using Bits = u16;
  static constexpr u32 kPerWord = 2;
  static constexpr u32 kExponents = 0x7F807F80u;
  static constexpr u32 kCarry = 0x00800080u;
  static constexpr u32 kSigns = 0x80008000u;
  static LORA_MMAP_BOTH float widen(u32 word, int i) { return float_of(i ? word & 0xFFFF0000u : word << 16); }
  static LORA_MMAP_BOTH u32 round(const float* sums) { return round_pair_to_bf16(sums[0], sums[1]); }
};

struct F32 {
  using Bits = u32;
  static constexpr u32 kPerWord = 1;
  static constexpr u32 kExponents = 0x7F800000u;
  static constexpr u32 kCarry = 0x00800000u;
  static constexpr u32 kSigns = 0x80000000u;
  static LORA_MMAP_BOTH float widen(u32 word, int) { return float_of(word); }
  static LORA_MMAP_BOTH u32 round(const float* sums) { return bits_of(sums[0]); }
};

// The sign bits of those elements of `word` that are not finite.
template <class Format>
LORA_MMAP_BOTH u32 not_finite(u32 word) {
  return ((word & Format::kExponents) + Format::kCarry) & Format::kSigns;
}

// base + acc, rounded once, for the elements of a word. Where the base is not finite neither is the sum, so a
// result that is finite throughout needs no second look.
template <class Format>
LORA_MMAP_BOTH u32 sum_word(u32 base, const float* acc) {
  float sums[Format::kPerWord];
  for (u32 i = 0; i < Format::kPerWord; ++i) sums[i] = add(Format::widen(base, static_cast<int>(i)), acc[i]);
  return Format::round(sums);
}

// `fused` with the base's bits where the base is not finite.
template <class Format>
LORA_MMAP_BOTH u32 keep_not_finite(u32 base, u32 fused) {
  constexpr u32 kShift = 32 / Format::kPerWord - 1;
  const u32 kept = (not_finite<Format>(base) >> kShift) * static_cast<u32>((1ull << (kShift + 1)) - 1);
  return (base & kept) | (fused & ~kept);
}

LORA_MMAP_BOTH bool is_finite(float value) {
  return not_finite<F32>(bits_of(value)) == 0;
}

LORA_MMAP_BOTH bool is_finite(double value) {
  constexpr u64 kExponent = 0x7FF0000000000000ull;
  return (bits_of(value) & kExponent) != kExponent;
}

}  // namespace lora_mmap::cuda
