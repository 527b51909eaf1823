#include "base/convert_avx2.h"

#if defined(__AVX2__) && defined(__F16C__)

#include <immintrin.h>

#include <cstring>

namespace lora_mmap {
namespace {

// Eight elements at a time, as fp32 in between.
struct F16 {
  using Bits = uint16_t;
  static __m256 load(const Bits* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static void store(Bits* to, __m256 value) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
  }
};

struct BF16 {
  using Bits = uint16_t;
  static __m256 load(const Bits* from) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  // x + 0x7FFF + (bit 16 of x), and the upper half of it. Not VCVTNEPS2BF16, which flushes subnormals.
  static void store(Bits* to, __m256 value) {
    const __m256i x = _mm256_castps_si256(value);
    const __m256i upper = _mm256_srli_epi32(x, 16);
    const __m256i odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
    const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(x, _mm256_set1_epi32(0x7FFF)), odd);
    const __m256i quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
    const __m256i rounded = _mm256_blendv_epi8(_mm256_srli_epi32(sum, 16), quiet, is_nan);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                     _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1)));
  }
};

struct F32 {
  using Bits = float;
  static __m256 load(const Bits* from) { return _mm256_loadu_ps(from); }
  static void store(Bits* to, __m256 value) { _mm256_storeu_ps(to, value); }
};

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
      return convert<From, F16>;
    case DType::BF16:
      return convert<From, BF16>;
    default:
      return convert<From, F32>;
  }
}

}  // namespace

Converter avx2_converter(DType from, DType to) {
  switch (from) {
    case DType::F16:
      return converter_to<F16>(to);
    case DType::BF16:
      return converter_to<BF16>(to);
    default:
      return converter_to<F32>(to);
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
