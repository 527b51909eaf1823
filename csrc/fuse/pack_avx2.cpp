#include "fuse/pack_avx2.h"

#if defined(__AVX2__)

#include <immintrin.h>

#include <cstring>

#include "fuse/factor_avx2.h"
#include "fuse/pack.h"

// Everything here has internal linkage: an inline function compiled with these flags and kept by the linker
// for the whole program would crash older CPUs.
namespace lora_mmap {
namespace {

void store_aligned(float* to, Pair values) {
  _mm256_store_ps(to, values.low);
  _mm256_store_ps(to + 8, values.high);
}

// use(values of 16 elements, i) for i = 0, 16, ...; past the end the elements are zeros, not read.
template <class Source, class Use>
void for_each_16(const void* source, int64_t count, Use use) {
  using Bits = typename Source::Bits;
  const Bits* from = static_cast<const Bits*>(source);
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) use(Source::load(from + i), i);
  if (i < count) {
    Bits tail[16] = {};
    std::memcpy(tail, from + i, static_cast<size_t>(count - i) * sizeof(Bits));
    use(Source::load(tail), i);
  }
}

template <class Source>
void pack_down_as(bool split, const void* source, int64_t count, char* panels, int64_t panel_stride) {
  for_each_16<Source>(source, count, [&](Pair values, int64_t i) {
    values = canonical(values);
    store_aligned(reinterpret_cast<float*>(panels + i / 16 * panel_stride),
                  split ? even_odd(values) : values);
  });
}

// Never stores past the end: the next term may be there already.
template <class Source>
void pack_up_as(const void* source, int64_t count, float scale, float* out) {
  const __m256 s = _mm256_set1_ps(scale);
  for_each_16<Source>(source, count, [&](Pair values, int64_t i) {
    const Pair scaled = canonical(Pair{_mm256_mul_ps(values.low, s), _mm256_mul_ps(values.high, s)});
    if (i + 16 <= count) {
      _mm256_storeu_ps(out + i, scaled.low);
      _mm256_storeu_ps(out + i + 8, scaled.high);
    } else {
      alignas(32) float tail[16];
      store_aligned(tail, scaled);
      std::memcpy(out + i, tail, static_cast<size_t>(count - i) * sizeof(float));
    }
  });
}

struct Avx2 {
  using F16 = F16Source;
  using BF16 = BF16Source;
  using F32 = F32Source;
  static constexpr int kWideCols = 8;
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

void pack_down_avx2(DType weight, DType source_dtype, const void* source, int64_t count, void* panels,
                    int64_t panel_stride) {
  pack_down<Avx2>(weight, source_dtype, source, count, panels, panel_stride);
}

void pack_up_avx2(DType weight, DType source_dtype, const UpRows& rows, double scale, void* out,
                  int64_t out_stride_nbytes) {
  pack_up<Avx2>(weight, source_dtype, rows, scale, out, out_stride_nbytes);
}

}  // namespace lora_mmap

#endif  // __AVX2__
