#include "base/convert.h"

#include <bit>

#include "base/convert_avx2.h"
#include "base/half.h"

namespace lora_mmap {
namespace {

struct F16 {
  using Bits = uint16_t;
  static float widen(Bits bits) { return f16_to_float(bits); }
  static Bits round(float value) { return float_to_f16(value); }
};

struct BF16 {
  using Bits = uint16_t;
  static float widen(Bits bits) { return bf16_to_float(bits); }
  static Bits round(float value) { return float_to_bf16(value); }
};

struct F32 {
  using Bits = float;
  static float widen(Bits value) { return value; }
  static Bits round(float value) { return value; }
};

template <class From, class To>
void convert(const void* from, void* to, int64_t count) {
  const auto* in = static_cast<const typename From::Bits*>(from);
  auto* out = static_cast<typename To::Bits*>(to);
  for (int64_t i = 0; i < count; ++i) out[i] = To::round(From::widen(in[i]));
}

template <class From>
Converter scalar_converter(DType to) {
  switch (to) {
    case DType::F16:
      return convert<From, F16>;
    case DType::BF16:
      return convert<From, BF16>;
    default:
      return convert<From, F32>;
  }
}

bool takes_part(DType dtype) {
  return dtype == DType::F16 || dtype == DType::BF16 || dtype == DType::F32;
}

}  // namespace

bool is_convertible(DType from, DType to) {
  return from != to && takes_part(from) && takes_part(to);
}

Converter converter(DType from, DType to, bool vectorised) {
  if (!is_convertible(from, to)) return nullptr;
  if (vectorised)
    if (const Converter found = avx2_converter(from, to)) return found;
  switch (from) {
    case DType::F16:
      return scalar_converter<F16>(to);
    case DType::BF16:
      return scalar_converter<BF16>(to);
    default:
      return scalar_converter<F32>(to);
  }
}

}  // namespace lora_mmap
