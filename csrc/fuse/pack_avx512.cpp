#include "fuse/pack_avx512.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)

// GCC 12's own header initialises registers with themselves and warns of it (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <cstring>

// Everything here has internal linkage: an inline function compiled with these flags and kept by the linker
// for the whole program would crash older CPUs.
namespace lora_mmap {
namespace {

// `mask` has a bit for each element that is there: the others are zeros, not read.
struct F16Source {
  using Bits = uint16_t;
  static __m512 load(const Bits* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static __m512 load(__mmask16 mask, const Bits* from) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, from));
  }
};

struct BF16Source {
  using Bits = uint16_t;
  static __m512 load(const Bits* from) {
    return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static __m512 load(__mmask16 mask, const Bits* from) { return widen(_mm256_maskz_loadu_epi16(mask, from)); }
  static __m512 widen(__m256i bits) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
};

struct F32Source {
  using Bits = float;
  static __m512 load(const Bits* from) { return _mm512_loadu_ps(from); }
  static __m512 load(__mmask16 mask, const Bits* from) { return _mm512_maskz_loadu_ps(mask, from); }
};

// Every NaN becomes the default one: see factor_avx2.h.
__m512 canonical(__m512 value) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q), value,
                              _mm512_set1_ps(__builtin_nanf("")));
}

__mmask16 first_16(int64_t count) {
  return count >= 16 ? 0xFFFF : count <= 0 ? 0 : static_cast<__mmask16>((1u << count) - 1);
}

// A panel of a BF16 weight is its even columns, then its odd ones (see tile_avx512.cpp).
template <class Source>
void pack_down_as(bool split, const void* source, int64_t count, char* panels, int64_t panel_stride) {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  const auto* from = static_cast<const typename Source::Bits*>(source);
  for (int64_t i = 0; i < count; i += 32, panels += panel_stride) {
    const __m512 low = canonical(Source::load(first_16(count - i), from + i));
    const __m512 high = canonical(Source::load(first_16(count - i - 16), from + i + 16));
    float* to = reinterpret_cast<float*>(panels);
    _mm512_store_ps(to, split ? _mm512_permutex2var_ps(low, even, high) : low);
    _mm512_store_ps(to + 16, split ? _mm512_permutex2var_ps(low, odd, high) : high);
  }
}

void pack_down_f64(const void* source, int64_t count, char* panels, int64_t panel_stride) {
  const char* from = static_cast<const char*>(source);
  for (int64_t i = 0; i < count; i += 16) {
    double values[16] = {};
    std::memcpy(values, from + i * 8, static_cast<size_t>(count - i < 16 ? count - i : 16) * 8);
    std::memcpy(panels + i / 16 * panel_stride, values, sizeof(values));
  }
}

// Never stores past the end: the next term may be there already. Masks only where it must: a masked store
// takes several times as long (Zen 4).
template <class Source>
void pack_up_as(const void* source, int64_t count, float scale, float* out) {
  const auto* from = static_cast<const typename Source::Bits*>(source);
  const __m512 s = _mm512_set1_ps(scale);
  int64_t i = 0;
  for (; i + 16 <= count; i += 16)
    _mm512_storeu_ps(out + i, canonical(_mm512_mul_ps(Source::load(from + i), s)));
  if (i == count) return;
  const __mmask16 mask = first_16(count - i);
  _mm512_mask_storeu_ps(out + i, mask, canonical(_mm512_mul_ps(Source::load(mask, from + i), s)));
}

void pack_up_f64(const void* source, int64_t count, double scale, double* out) {
  const char* from = static_cast<const char*>(source);
  for (int64_t i = 0; i < count; ++i) {
    double value;
    std::memcpy(&value, from + i * 8, 8);
    out[i] = value * scale;
  }
}

}  // namespace

void pack_down_avx512(DType weight, DType source_dtype, const void* source, int64_t count, void* panels,
                      int64_t panel_stride) {
  char* to = static_cast<char*>(panels);
  const bool split = weight == DType::BF16;
  if (weight == DType::F64) return pack_down_f64(source, count, to, panel_stride);
  if (source_dtype == DType::F16) return pack_down_as<F16Source>(split, source, count, to, panel_stride);
  if (source_dtype == DType::BF16) return pack_down_as<BF16Source>(split, source, count, to, panel_stride);
  return pack_down_as<F32Source>(split, source, count, to, panel_stride);
}

void pack_up_avx512(DType weight, DType source_dtype, const void* source, int64_t count, double scale,
                    void* out) {
  if (weight == DType::F64) return pack_up_f64(source, count, scale, static_cast<double*>(out));
  const float s = static_cast<float>(scale);
  float* to = static_cast<float*>(out);
  if (source_dtype == DType::F16) return pack_up_as<F16Source>(source, count, s, to);
  if (source_dtype == DType::BF16) return pack_up_as<BF16Source>(source, count, s, to);
  return pack_up_as<F32Source>(source, count, s, to);
}

}  // namespace lora_mmap

#endif
