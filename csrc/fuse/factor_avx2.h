// Elements of factors, widened to fp32 in two registers. In an unnamed namespace: see format_avx2.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace lora_mmap {
namespace {

struct Pair {
  __m256 low;
  __m256 high;
};

struct F16Source {
  using Bits = uint16_t;
  static Pair load(const Bits* from) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return {_mm256_cvtph_ps(_mm256_castsi256_si128(bits)),
            _mm256_cvtph_ps(_mm256_extracti128_si256(bits, 1))};
  }
};

struct BF16Source {
  using Bits = uint16_t;
  static Pair load(const Bits* from) {
    const __m128i* halves = reinterpret_cast<const __m128i*>(from);
    return {widen(_mm_loadu_si128(halves)), widen(_mm_loadu_si128(halves + 1))};
  }
  static __m256 widen(__m128i bits) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
};

struct F32Source {
  using Bits = float;
  static Pair load(const Bits* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
};

// Every NaN becomes the default one: a payload in the lower 16 bits could carry into the sign when a sum is
// rounded to BF16 in integers.
__m256 canonical(__m256 value) {
  return _mm256_blendv_ps(value, _mm256_set1_ps(__builtin_nanf("")),
                          _mm256_cmp_ps(value, value, _CMP_UNORD_Q));
}

Pair canonical(Pair values) {
  return {canonical(values.low), canonical(values.high)};
}

// Even columns, then odd ones: the order of BF16 weights (format_avx2.h).
Pair even_odd(Pair natural) {
  const __m256 even = _mm256_shuffle_ps(natural.low, natural.high, 0x88);
  const __m256 odd = _mm256_shuffle_ps(natural.low, natural.high, 0xDD);
  return {_mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(even), 0xD8)),
          _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(odd), 0xD8))};
}

}  // namespace
}  // namespace lora_mmap
