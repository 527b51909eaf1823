#include "base/convert.h"

#include "base/convert_avx2.h"
#include "base/elements.h"

namespace lora_mmap {
namespace {

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
      return convert<From, F16Element>;
    case DType::BF16:
      return convert<From, BF16Element>;
    default:
      return convert<From, F32Element>;
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
      return scalar_converter<F16Element>(to);
    case DType::BF16:
      return scalar_converter<BF16Element>(to);
    default:
      return scalar_converter<F32Element>(to);
  }
}

}  // namespace lora_mmap
