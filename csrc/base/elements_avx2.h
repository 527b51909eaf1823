// Eight elements of one type in registers of AVX2 + F16C, as fp32; stored rounded once, to nearest even. In
// an unnamed namespace, as everything that is compiled with these flags.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace lora_mmap {
namespace {

struct F16x8 {
  using Bits = uint16_t;
  static __m256 load(const Bits* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static void store(Bits* to, __m256 value) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
  }
};

struct BF16x8 {
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

struct F32x8 {
  using Bits = float;
  static __m256 load(const Bits* from) { return _mm256_loadu_ps(from); }
  static void store(Bits* to, __m256 value) { _mm256_storeu_ps(to, value); }
};

}  // namespace
}  // namespace lora_mmap
