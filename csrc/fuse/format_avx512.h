// The four weight types in registers of AVX-512: formats as pipelined_tile.h has them. In an unnamed
// namespace, as everything that is compiled with these flags.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace lora_mmap {
namespace {

struct Fp32 {
  using Scalar = float;
  using Vec = __m512;
  static constexpr int kCols = 32;
  static Vec zero() { return _mm512_setzero_ps(); }
  static Vec load(const float* from) { return _mm512_load_ps(from); }
  static void store(float* to, Vec value) { _mm512_store_ps(to, value); }
  // As an integer: VPBROADCASTD is a load alone where VBROADCASTSS takes a slot of the vector pipes too (Zen
  // 4).
  static Vec broadcast(const float* from) {
    int32_t bits;
    std::memcpy(&bits, from, sizeof(bits));
    return _mm512_castsi512_ps(_mm512_set1_epi32(bits));
  }
  static Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
  static Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
  static Vec subtract(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
};

struct Fp64 {
  using Scalar = double;
  using Vec = __m512d;
  static constexpr int kCols = 16;
  static Vec zero() { return _mm512_setzero_pd(); }
  static Vec load(const double* from) { return _mm512_load_pd(from); }
  static void store(double* to, Vec value) { _mm512_store_pd(to, value); }
  static Vec broadcast(const double* from) {
    int64_t bits;
    std::memcpy(&bits, from, sizeof(bits));
    return _mm512_castsi512_pd(_mm512_set1_epi64(bits));
  }
  static Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_pd(a, b, c); }
};

template <int N>
struct Bits {
  __m512i part[N];
};

__m512i load_bits(const void* from) {
  return _mm512_loadu_si512(from);
}

// Results, and what they are as the compute type.
template <class Format>
struct WideResults {
  typename Format::Row row;
  typename Format::Vec low;
  typename Format::Vec high;
};

struct F16 : Fp32 {
  using Element = uint16_t;
  using Row = Bits<1>;
  static __m512i exponent() { return _mm512_set1_epi16(0x7C00); }
  static uint32_t equal(__m512i a, __m512i b) { return _mm512_cmpeq_epi16_mask(a, b); }
  static __m512i blend(uint32_t mask, __m512i a, __m512i b) { return _mm512_mask_blend_epi16(mask, a, b); }
  static __m256i round_half(Vec value) { return _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT); }
  static Row merge(__m256i low, __m256i high) {
    return {_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1)};
  }
  static Vec low(const Element* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static Vec high(const Element* from) { return low(from + 16); }
  static Row add_round(const Element* from, Vec low, Vec high) {
    return round(_mm512_add_ps(F16::low(from), low), _mm512_add_ps(F16::high(from), high));
  }
  // Widened before they are merged, which spares taking them apart again.
  static WideResults<F16> add_round_wide(const Element* from, Vec low, Vec high) {
    const __m256i first = round_half(_mm512_add_ps(F16::low(from), low));
    const __m256i second = round_half(_mm512_add_ps(F16::high(from), high));
    return {merge(first, second), _mm512_cvtph_ps(first), _mm512_cvtph_ps(second)};
  }
  static Vec low(const Row& row) { return _mm512_cvtph_ps(_mm512_castsi512_si256(row.part[0])); }
  static Vec high(const Row& row) { return _mm512_cvtph_ps(_mm512_extracti64x4_epi64(row.part[0], 1)); }
  static Row round(Vec low, Vec high) { return merge(round_half(low), round_half(high)); }
  static Row guess(Vec low, Vec high) { return round(low, high); }
};

// Even columns in the low register, odd ones in the high: widening is a shift and a mask, and no lane is
// crossed on the way back. A is packed in the same order.
struct BF16 : Fp32 {
  using Element = uint16_t;
  using Row = Bits<1>;
  static __m512i exponent() { return _mm512_set1_epi16(0x7F80); }
  static uint32_t equal(__m512i a, __m512i b) { return _mm512_cmpeq_epi16_mask(a, b); }
  static __m512i blend(uint32_t mask, __m512i a, __m512i b) { return _mm512_mask_blend_epi16(mask, a, b); }
  // To nearest, ties to even, in the upper half: x + 0x7FFF + (bit 16 of x). Not VCVTNEPS2BF16, which flushes
  // subnormals. No NaN has bits that could carry into the sign: see format_avx2.h.
  static __m512i round_up(Vec value) {
    const __m512i x = _mm512_castps_si512(value);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(x, 16), _mm512_set1_epi32(1));
    return _mm512_add_epi32(_mm512_add_epi32(x, _mm512_set1_epi32(0x7FFF)), odd);
  }
  static Row add_round(const Element* from, Vec low, Vec high) {
    const Row old{load_bits(from)};
    const __m512i upper = round_up(_mm512_add_ps(BF16::high(old), high));
    return merge(round_up(_mm512_add_ps(BF16::low(old), low)), upper);
  }
  static WideResults<BF16> add_round_wide(const Element* from, Vec low, Vec high) {
    const Row row = add_round(from, low, high);
    return {row, BF16::low(row), BF16::high(row)};
  }
  static Vec low(const Element* from) { return low(Row{load_bits(from)}); }
  static Vec high(const Element* from) { return high(Row{load_bits(from)}); }
  // As BF16Weight has it. NaNs stay such, as in round_up().
  static __m512i nearest(Vec value) {
    return _mm512_add_epi32(_mm512_castps_si512(value), _mm512_set1_epi32(0x8000));
  }
  static Row guess(Vec low, Vec high) { return merge(nearest(low), nearest(high)); }
  static Row merge(__m512i low, __m512i high) {
    return {_mm512_mask_blend_epi16(0xAAAAAAAA, _mm512_srli_epi32(low, 16), high)};
  }
  static Vec low(const Row& row) { return _mm512_castsi512_ps(_mm512_slli_epi32(row.part[0], 16)); }
  static Vec high(const Row& row) {
    return _mm512_castsi512_ps(_mm512_and_si512(row.part[0], _mm512_set1_epi32(-0x10000)));
  }
  static Row round(Vec low, Vec high) { return merge(round_up(low), round_up(high)); }
};

struct F32 : Fp32 {
  using Element = uint32_t;
  using Row = Bits<2>;
  static __m512i exponent() { return _mm512_set1_epi32(0x7F800000); }
  static uint32_t equal(__m512i a, __m512i b) { return _mm512_cmpeq_epi32_mask(a, b); }
  static __m512i larger(__m512i a, __m512i b) { return _mm512_max_epu32(a, b); }
  static __m512i blend(uint32_t mask, __m512i a, __m512i b) {
    return _mm512_mask_blend_epi32(static_cast<__mmask16>(mask), a, b);
  }
  static Vec low(const Element* from) { return _mm512_loadu_ps(from); }
  static Vec high(const Element* from) { return low(from + 16); }
  static Row add_round(const Element* from, Vec low, Vec high) {
    return round(_mm512_add_ps(F32::low(from), low), _mm512_add_ps(F32::high(from), high));
  }
  static WideResults<F32> add_round_wide(const Element* from, Vec low, Vec high) {
    const __m512 first = _mm512_add_ps(F32::low(from), low);
    const __m512 second = _mm512_add_ps(F32::high(from), high);
    return {round(first, second), first, second};
  }
  static Row guess(Vec low, Vec high) { return round(low, high); }
  static Vec low(const Row& row) { return _mm512_castsi512_ps(row.part[0]); }
  static Vec high(const Row& row) { return _mm512_castsi512_ps(row.part[1]); }
  static Row round(Vec low, Vec high) { return {_mm512_castps_si512(low), _mm512_castps_si512(high)}; }
};

struct F64 : Fp64 {
  using Element = uint64_t;
  using Row = Bits<2>;
  static __m512i exponent() { return _mm512_set1_epi64(0x7FF0000000000000); }
  static uint32_t equal(__m512i a, __m512i b) { return _mm512_cmpeq_epi64_mask(a, b); }
  static __m512i larger(__m512i a, __m512i b) { return _mm512_max_epu64(a, b); }
  static __m512i blend(uint32_t mask, __m512i a, __m512i b) {
    return _mm512_mask_blend_epi64(static_cast<__mmask8>(mask), a, b);
  }
  static Row add_round(const Element* from, Vec low, Vec high) {
    return {_mm512_castpd_si512(_mm512_add_pd(_mm512_loadu_pd(from), low)),
            _mm512_castpd_si512(_mm512_add_pd(_mm512_loadu_pd(from + 8), high))};
  }
};

// What every format does with the bits of its results.
template <class Format>
struct Weight : Format {
  using Row = typename Format::Row;
  static constexpr int kParts = sizeof(Row) / sizeof(__m512i);

  static uint32_t non_finite(__m512i bits) {
    return Format::equal(_mm512_and_si512(bits, Format::exponent()), Format::exponent());
  }
  // One comparison a row: they run in the pipes of the FMAs.
  static bool all_finite(const Row& row) {
    __m512i most = _mm512_and_si512(row.part[0], Format::exponent());
    if constexpr (kParts == 2) most = Format::larger(most, _mm512_and_si512(row.part[1], Format::exponent()));
    return Format::equal(most, Format::exponent()) == 0;
  }
  static void store_row(void* to, const Row& row) {
#pragma GCC unroll 2
    for (int i = 0; i < kParts; ++i) _mm512_storeu_si512(static_cast<__m512i*>(to) + i, row.part[i]);
  }
  static Row load_row(const void* from) {
    Row row;
    for (int i = 0; i < kParts; ++i) row.part[i] = load_bits(static_cast<const __m512i*>(from) + i);
    return row;
  }
  // The row with the base's bits where the base is not finite. True if another result is not.
  [[gnu::noinline]] static bool store_kept(const void* base, void* weight, Row fused) {
    uint32_t overflow = 0;
    for (int i = 0; i < kParts; ++i) {
      const __m512i old = load_bits(static_cast<const __m512i*>(base) + i);
      const uint32_t keep = non_finite(old);
      overflow |= non_finite(fused.part[i]) & ~keep;
      fused.part[i] = Format::blend(keep, fused.part[i], old);
    }
    store_row(weight, fused);
    return overflow != 0;
  }
};

}  // namespace
}  // namespace lora_mmap
