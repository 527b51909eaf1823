#include "fuse/pack_avx2.h"

#if defined(__AVX2__)

#include <immintrin.h>

#include <cstring>

#include "fuse/factor_avx2.h"

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

void pack_down_f64(const void* source, int64_t count, char* panels, int64_t panel_stride) {
  const char* from = static_cast<const char*>(source);
  for (int64_t i = 0; i < count; i += 8) {
    double values[8] = {};
    std::memcpy(values, from + i * 8, static_cast<size_t>(count - i < 8 ? count - i : 8) * 8);
    std::memcpy(panels + i / 8 * panel_stride, values, sizeof(values));
  }
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

void pack_up_f64(const void* source, int64_t count, double scale, double* out) {
  const char* from = static_cast<const char*>(source);
  for (int64_t i = 0; i < count; ++i) {
    double value;
    std::memcpy(&value, from + i * 8, 8);
    out[i] = value * scale;
  }
}

}  // namespace

void pack_down_avx2(DType weight, DType source_dtype, const void* source, int64_t count, void* panels,
                    int64_t panel_stride) {
  char* to = static_cast<char*>(panels);
  const bool split = weight == DType::BF16;
  if (weight == DType::F64) return pack_down_f64(source, count, to, panel_stride);
  if (source_dtype == DType::F16) return pack_down_as<F16Source>(split, source, count, to, panel_stride);
  if (source_dtype == DType::BF16) return pack_down_as<BF16Source>(split, source, count, to, panel_stride);
  return pack_down_as<F32Source>(split, source, count, to, panel_stride);
}

void pack_up_avx2(DType weight, DType source_dtype, const void* source, int64_t count, double scale,
                  void* out) {
  if (weight == DType::F64) return pack_up_f64(source, count, scale, static_cast<double*>(out));
  const float s = static_cast<float>(scale);
  float* to = static_cast<float*>(out);
  if (source_dtype == DType::F16) return pack_up_as<F16Source>(source, count, s, to);
  if (source_dtype == DType::BF16) return pack_up_as<BF16Source>(source, count, s, to);
  return pack_up_as<F32Source>(source, count, s, to);
}

}  // namespace lora_mmap

#endif  // __AVX2__
