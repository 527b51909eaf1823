// The types that 16-bit weights and factors are computed in, one element at a time: the same as the registers
// of elements_avx2.h.
#pragma once

#include "base/half.h"

namespace lora_mmap {

struct F16Element {
  using Bits = uint16_t;
  static float widen(Bits bits) { return f16_to_float(bits); }
  static Bits round(float value) { return float_to_f16(value); }
};

struct BF16Element {
  using Bits = uint16_t;
  static float widen(Bits bits) { return bf16_to_float(bits); }
  static Bits round(float value) { return float_to_bf16(value); }
};

struct F32Element {
  using Bits = float;
  static float widen(Bits value) { return value; }
  static Bits round(float value) { return value; }
};

}  // namespace lora_mmap
