// The four weight types in registers of AVX2 + FMA + F16C: formats as tile.h has them. In an unnamed
// namespace, as everything that is compiled with these flags.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace lora_mmap {
namespace {

template <class Register>
[[gnu::always_inline]] inline void pin_register(Register& value) {
  asm volatile("" : "+x"(value) : : "memory");
}

struct Fp32 {
  using Scalar = float;
  using Vec = __m256;
  static constexpr int kCols = 16;
  static Vec zero() { return _mm256_setzero_ps(); }
  static Vec load(const float* from) { return _mm256_load_ps(from); }
  static void store(float* to, Vec value) { _mm256_store_ps(to, value); }
  static Vec broadcast(const float* from) { return _mm256_broadcast_ss(from); }
  static Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
  static Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
  static Vec subtract(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
  static Vec scaled(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
  static void pin(Vec& value) { pin_register(value); }
};

struct Fp64 {
  using Scalar = double;
  using Vec = __m256d;
  static constexpr int kCols = 8;
  static Vec zero() { return _mm256_setzero_pd(); }
  static Vec load(const double* from) { return _mm256_load_pd(from); }
  static void store(double* to, Vec value) { _mm256_store_pd(to, value); }
  static Vec broadcast(const double* from) { return _mm256_broadcast_sd(from); }
  static Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_pd(a, b, c); }
  static Vec add(Vec a, Vec b) { return _mm256_add_pd(a, b); }
  static Vec scaled(Vec a, Vec b) { return _mm256_mul_pd(a, b); }
  static void pin(Vec& value) { pin_register(value); }
};

template <int N>
struct Bits {
  __m256i part[N];
};

__m256i load_bits(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}

struct F16 : Fp32 {
  using Element = uint16_t;
  using Row = Bits<1>;
  static __m256i exponent() { return _mm256_set1_epi16(0x7C00); }
  static __m256i equal(__m256i a, __m256i b) { return _mm256_cmpeq_epi16(a, b); }
  static Vec low(const Element* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static Vec high(const Element* from) { return low(from + 8); }
  static Vec low(const Row& row) { return _mm256_cvtph_ps(_mm256_castsi256_si128(row.part[0])); }
  static Vec high(const Row& row) { return _mm256_cvtph_ps(_mm256_extracti128_si256(row.part[0], 1)); }
  static Row round(Vec low, Vec high) {
    return {_mm256_set_m128i(_mm256_cvtps_ph(high, _MM_FROUND_TO_NEAREST_INT),
                             _mm256_cvtps_ph(low, _MM_FROUND_TO_NEAREST_INT))};
  }
  static Row guess(Vec low, Vec high) { return round(low, high); }
};

// Even columns in the low register, odd ones in the high: widening is a shift and a mask, and no lane is
// crossed on the way back. A is packed in the same order.
struct BF16 : Fp32 {
  using Element = uint16_t;
  using Row = Bits<1>;
  static __m256i exponent() { return _mm256_set1_epi16(0x7F80); }
  static __m256i equal(__m256i a, __m256i b) { return _mm256_cmpeq_epi16(a, b); }
  static Vec low(const Row& row) { return _mm256_castsi256_ps(_mm256_slli_epi32(row.part[0], 16)); }
  static Vec high(const Row& row) {
    return _mm256_castsi256_ps(_mm256_and_si256(row.part[0], _mm256_set1_epi32(-0x10000)));
  }
  static Vec low(const Element* from) { return low(Row{load_bits(from)}); }
  static Vec high(const Element* from) { return high(Row{load_bits(from)}); }
  // To nearest, ties to even, in the upper half: x + 0x7FFF + (bit 16 of x). Not VCVTNEPS2BF16, which flushes
  // subnormals. A NaN stays one: those of A and B are canonical (factor_avx2.h), those of the base have zeros
  // in the lower half, so nothing carries into the sign.
  static __m256i round_up(Vec value) {
    const __m256i x = _mm256_castps_si256(value);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(x, 16), _mm256_set1_epi32(1));
    return _mm256_add_epi32(_mm256_add_epi32(x, _mm256_set1_epi32(0x7FFF)), odd);
  }
  static Row merge(__m256i low, __m256i high) {
    return {_mm256_blend_epi16(_mm256_srli_epi32(low, 16), high, 0xAA)};
  }
  static Row round(Vec low, Vec high) { return merge(round_up(low), round_up(high)); }
  // As BF16Weight has it. NaNs stay such, as in round_up().
  static __m256i nearest(Vec value) {
    return _mm256_add_epi32(_mm256_castps_si256(value), _mm256_set1_epi32(0x8000));
  }
  static Row guess(Vec low, Vec high) { return merge(nearest(low), nearest(high)); }
};

struct F32 : Fp32 {
  using Element = uint32_t;
  using Row = Bits<2>;
  static __m256i exponent() { return _mm256_set1_epi32(0x7F800000); }
  static __m256i equal(__m256i a, __m256i b) { return _mm256_cmpeq_epi32(a, b); }
  static Vec low(const Element* from) { return _mm256_loadu_ps(reinterpret_cast<const float*>(from)); }
  static Vec high(const Element* from) { return low(from + 8); }
  static Vec low(const Row& row) { return _mm256_castsi256_ps(row.part[0]); }
  static Vec high(const Row& row) { return _mm256_castsi256_ps(row.part[1]); }
  static Row round(Vec low, Vec high) { return {_mm256_castps_si256(low), _mm256_castps_si256(high)}; }
  static Row guess(Vec low, Vec high) { return round(low, high); }
};

struct F64 : Fp64 {
  using Element = uint64_t;
  using Row = Bits<2>;
  static __m256i exponent() { return _mm256_set1_epi64x(0x7FF0000000000000); }
  static __m256i equal(__m256i a, __m256i b) { return _mm256_cmpeq_epi64(a, b); }
  static Vec low(const Element* from) { return _mm256_loadu_pd(reinterpret_cast<const double*>(from)); }
  static Vec high(const Element* from) { return low(from + 4); }
  static Row round(Vec low, Vec high) { return {_mm256_castpd_si256(low), _mm256_castpd_si256(high)}; }
};

// What every format does with the bits of its results.
template <class Format>
struct Weight : Format {
  using Row = typename Format::Row;
  using Flags = __m256i;
  static constexpr int kParts = sizeof(Row) / sizeof(__m256i);

  static __m256i non_finite(__m256i bits) {
    return Format::equal(_mm256_and_si256(bits, Format::exponent()), Format::exponent());
  }
  static Flags merge_flags(Flags flags, const Row& row) {
#pragma GCC unroll 2
    for (int i = 0; i < kParts; ++i) flags = _mm256_or_si256(flags, non_finite(row.part[i]));
    return flags;
  }
  static bool any_flag(Flags flags) { return !_mm256_testz_si256(flags, flags); }
  static void pin_row(Row& row) {
#pragma GCC unroll 2
    for (int i = 0; i < kParts; ++i) pin_register(row.part[i]);
  }
  static void store_row(void* to, const Row& row) {
#pragma GCC unroll 2
    for (int i = 0; i < kParts; ++i) _mm256_storeu_si256(static_cast<__m256i*>(to) + i, row.part[i]);
  }
  static bool all_finite(const Row& row) { return !any_flag(merge_flags(_mm256_setzero_si256(), row)); }
  static Row load_row(const void* from) {
    Row row;
    for (int i = 0; i < kParts; ++i) row.part[i] = load_bits(static_cast<const __m256i*>(from) + i);
    return row;
  }
  // The row with the base's bits where the base is not finite. True if another result is not.
  [[gnu::noinline]] static bool store_kept(const void* base, void* weight, Row fused) {
    Flags overflow = _mm256_setzero_si256();
    for (int i = 0; i < kParts; ++i) {
      const __m256i old = load_bits(static_cast<const __m256i*>(base) + i);
      const __m256i keep = non_finite(old);
      overflow = _mm256_or_si256(overflow, _mm256_andnot_si256(keep, non_finite(fused.part[i])));
      fused.part[i] = _mm256_blendv_epi8(fused.part[i], old, keep);
    }
    store_row(weight, fused);
    return any_flag(overflow);
  }
};

}  // namespace
}  // namespace lora_mmap
