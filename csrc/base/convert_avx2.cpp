#include "base/convert_avx2.h"

#if defined(__AVX2__) && defined(__F16C__)

#include <cstring>

#include "base/elements_avx2.h"

namespace lora_mmap {
namespace {

template <class From, class To>
void convert(const void* from, void* to, int64_t count) {
  constexpr int64_t kAtOnce = 8;
  const auto* in = static_cast<const typename From::Bits*>(from);
  auto* out = static_cast<typename To::Bits*>(to);
  int64_t i = 0;
  for (; i + kAtOnce <= count; i += kAtOnce) To::store(out + i, From::load(in + i));
  if (i == count) return;
  typename From::Bits last_in[kAtOnce] = {};
  typename To::Bits last_out[kAtOnce];
  std::memcpy(last_in, in + i, static_cast<size_t>(count - i) * sizeof(*in));
  To::store(last_out, From::load(last_in));
  std::memcpy(out + i, last_out, static_cast<size_t>(count - i) * sizeof(*out));
}

template <class From>
Converter converter_to(DType to) {
  switch (to) {
    case DType::F16:
      return convert<From, F16x8>;
    case DType::BF16:
      return convert<From, BF16x8>;
    default:
      return convert<From, F32x8>;
  }
}

}  // namespace

Converter avx2_converter(DType from, DType to) {
  switch (from) {
    case DType::F16:
      return converter_to<F16x8>(to);
    case DType::BF16:
      return converter_to<BF16x8>(to);
    default:
      return converter_to<F32x8>(to);
  }
}

}  // namespace lora_mmap

#else

namespace lora_mmap {

Converter avx2_converter(DType, DType) {
  return nullptr;
}

}  // namespace lora_mmap

#endif
