// The four weight types, one element at a time: bits to the type fusion computes in, and back.
#pragma once

#include <bit>
#include <cstdint>

#include "base/dtype.h"
#include "base/half.h"

namespace lora_mmap {

// guess() is how a sum subtracted again is rounded: any way will do that gives the same bits on every
// instruction set.
struct F16Weight {
  using Bits = uint16_t;
  using Compute = float;
  static constexpr Bits kExponent = 0x7C00;
  static float widen(Bits bits) { return f16_to_float(bits); }
  static Bits round(float value) { return float_to_f16(value); }
  static Bits guess(float value) { return round(value); }
};

struct BF16Weight {
  using Bits = uint16_t;
  using Compute = float;
  static constexpr Bits kExponent = 0x7F80;
  static float widen(Bits bits) { return bf16_to_float(bits); }
  static Bits round(float value) { return float_to_bf16(value); }
  // To nearest, ties away from zero: a single addition. Not for NaNs.
  static Bits guess(float value) {
    return static_cast<Bits>((std::bit_cast<uint32_t>(value) + 0x8000) >> 16);
  }
};

struct F32Weight {
  using Bits = uint32_t;
  using Compute = float;
  static constexpr Bits kExponent = 0x7F800000;
  static float widen(Bits bits) { return std::bit_cast<float>(bits); }
  static Bits round(float value) { return std::bit_cast<Bits>(value); }
  static Bits guess(float value) { return round(value); }
};

struct F64Weight {
  using Bits = uint64_t;
  using Compute = double;
  static constexpr Bits kExponent = 0x7FF0000000000000;
  static double widen(Bits bits) { return std::bit_cast<double>(bits); }
  static Bits round(double value) { return std::bit_cast<Bits>(value); }
  static Bits guess(double value) { return round(value); }
};

inline bool is_weight_dtype(DType dtype) {
  return dtype == DType::F16 || dtype == DType::BF16 || dtype == DType::F32 || dtype == DType::F64;
}

// visitor(Format{}) with the format of `dtype`, which must satisfy is_weight_dtype.
template <class Visitor>
auto visit_weight_format(DType dtype, Visitor&& visitor) {
  switch (dtype) {
    case DType::F16:
      return visitor(F16Weight{});
    case DType::BF16:
      return visitor(BF16Weight{});
    case DType::F32:
      return visitor(F32Weight{});
    default:
      return visitor(F64Weight{});
  }
}

}  // namespace lora_mmap
