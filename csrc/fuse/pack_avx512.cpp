#include "fuse/pack_avx512.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)

// GCC 12's own header initialises registers with themselves and warns of it (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include "fuse/pack.h"

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

struct Avx512 {
  using F16 = F16Source;
  using BF16 = BF16Source;
  using F32 = F32Source;
  static constexpr int kWideCols = 16;
  template <class Source>
  static void down(bool split, const void* source, int64_t count, char* panels, int64_t panel_stride) {
    pack_down_as<Source>(split, source, count, panels, panel_stride);
  }
  template <class Source>
  static void up(const void* source, int64_t count, float scale, float* out) {
    pack_up_as<Source>(source, count, scale, out);
  }
};

}  // namespace

void pack_down_avx512(DType weight, DType source_dtype, const void* source, int64_t count, void* panels,
                      int64_t panel_stride) {
  pack_down<Avx512>(weight, source_dtype, source, count, panels, panel_stride);
}

void pack_up_avx512(DType weight, DType source_dtype, const UpRows& rows, double scale, void* out,
                    int64_t out_stride_nbytes) {
  pack_up<Avx512>(weight, source_dtype, rows, scale, out, out_stride_nbytes);
}

}  // namespace lora_mmap

#endif
