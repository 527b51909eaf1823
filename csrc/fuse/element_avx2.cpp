#include "fuse/element_avx2.h"

#if defined(__AVX2__)

#include <immintrin.h>

#include "fuse/direct_avx2.h"

// Everything here has internal linkage: see pack_avx2.cpp.
namespace lora_mmap {
namespace {

struct Fp32 {
  using Scalar = float;
  using Vec = __m256;
  static Vec load(const std::byte* from) { return _mm256_load_ps(reinterpret_cast<const float*>(from)); }
  static void store(std::byte* to, Vec value) { _mm256_store_ps(reinterpret_cast<float*>(to), value); }
  // A NaN becomes the default one (see factor_avx2.h).
  static Vec broadcast(double value) {
    return _mm256_set1_ps(value == value ? static_cast<float>(value) : __builtin_nanf(""));
  }
  static Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
  static Vec fms(Vec a, Vec b, Vec c) { return _mm256_fmsub_ps(a, b, c); }
  static Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
  static Vec multiply(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
  static __m256d sum_of_4(const std::byte* a, const std::byte* b) {
    return _mm256_cvtps_pd(_mm_add_ps(_mm_load_ps(reinterpret_cast<const float*>(a)),
                                      _mm_load_ps(reinterpret_cast<const float*>(b))));
  }
};

struct Fp64 {
  using Scalar = double;
  using Vec = __m256d;
  static Vec load(const std::byte* from) { return _mm256_load_pd(reinterpret_cast<const double*>(from)); }
  static void store(std::byte* to, Vec value) { _mm256_store_pd(reinterpret_cast<double*>(to), value); }
  static Vec broadcast(double value) { return _mm256_set1_pd(value); }
  static Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_pd(a, b, c); }
  static Vec fms(Vec a, Vec b, Vec c) { return _mm256_fmsub_pd(a, b, c); }
  static Vec add(Vec a, Vec b) { return _mm256_add_pd(a, b); }
  static Vec multiply(Vec a, Vec b) { return _mm256_mul_pd(a, b); }
  static __m256d sum_of_4(const std::byte* a, const std::byte* b) { return add(load(a), load(b)); }
};

// use(panel, byte within it) for every register of a row.
template <class Use>
[[gnu::always_inline]] inline void for_each_register(const RowShape& shape, Use use) {
  for (int64_t panel = 0; panel < shape.panels; ++panel)
    for (int64_t at = 0; at < shape.panel_nbytes; at += 32) use(panel, at);
}

[[gnu::always_inline]] inline std::byte* place(PanelRow row, int64_t panel, int64_t at) {
  return row.data + panel * row.stride + at;
}

template <class F>
void add_scaled_as(const RowShape& shape, PanelRow acc, PanelRow a, double scale) {
  const auto factor = F::broadcast(scale);
  for_each_register(shape, [&](int64_t panel, int64_t at) {
    std::byte* to = place(acc, panel, at);
    F::store(to, F::fma(F::load(place(a, panel, at)), factor, F::load(to)));
  });
}

template <class F>
void add_product_as(const RowShape& shape, PanelRow acc, PanelRow a, double scale, PanelRow b) {
  const auto factor = F::broadcast(scale);
  for_each_register(shape, [&](int64_t panel, int64_t at) {
    std::byte* to = place(acc, panel, at);
    const auto scaled = F::multiply(F::load(place(a, panel, at)), factor);
    F::store(to, F::fma(scaled, F::load(place(b, panel, at)), F::load(to)));
  });
}

template <class F>
void add_gained_as(const RowShape& shape, PanelRow acc, PanelRow base, PanelRow change, PanelRow gain,
                   double weight) {
  const auto factor = F::broadcast(weight);
  for_each_register(shape, [&](int64_t panel, int64_t at) {
    std::byte* to = place(acc, panel, at);
    const auto old = F::load(place(base, panel, at));
    const auto v = F::add(old, F::load(place(change, panel, at)));
    const auto difference = F::fms(F::load(place(gain, panel, at)), v, old);
    F::store(to, F::fma(difference, factor, F::load(to)));
  });
}

// add(column, squares of 4 columns) for whole fours, rest(column, square) for the columns left over.
template <class F, class Add, class Rest>
[[gnu::always_inline]] inline void for_each_square(const RowShape& shape, PanelRow base, PanelRow change,
                                                   Add add, Rest rest) {
  using Scalar = typename F::Scalar;
  const int64_t panel_cols = shape.panel_nbytes / static_cast<int64_t>(sizeof(Scalar));
  for (int64_t panel = 0, col = 0; panel < shape.panels; ++panel) {
    const std::byte* old = place(base, panel, 0);
    const std::byte* delta = place(change, panel, 0);
    const int64_t end = col + panel_cols < shape.cols ? col + panel_cols : shape.cols;
    for (; col + 4 <= end; col += 4, old += 4 * sizeof(Scalar), delta += 4 * sizeof(Scalar)) {
      const __m256d v = F::sum_of_4(old, delta);
      add(col, _mm256_mul_pd(v, v));
    }
    for (; col < end; ++col, old += sizeof(Scalar), delta += sizeof(Scalar)) {
      const Scalar sum = *reinterpret_cast<const Scalar*>(old) + *reinterpret_cast<const Scalar*>(delta);
      const double v = sum;
      rest(col, v * v);
    }
  }
}

void add_four(double* to, __m256d values) {
  _mm256_storeu_pd(to, _mm256_add_pd(_mm256_loadu_pd(to), values));
}

template <class F>
void sum_lanes_as(const RowShape& shape, PanelRow base, PanelRow change, double* lanes) {
  for_each_square<F>(
      shape, base, change, [&](int64_t col, __m256d squares) { add_four(lanes + col % 16, squares); },
      [&](int64_t col, double square) { lanes[col % 16] += square; });
}

template <class F>
void sum_columns_as(const RowShape& shape, PanelRow base, PanelRow change, double* sums) {
  for_each_square<F>(
      shape, base, change, [&](int64_t col, __m256d squares) { add_four(sums + col, squares); },
      [&](int64_t col, double square) { sums[col] += square; });
}

void add_scaled(const RowShape& shape, PanelRow acc, PanelRow a, double scale) {
  shape.wide ? add_scaled_as<Fp64>(shape, acc, a, scale) : add_scaled_as<Fp32>(shape, acc, a, scale);
}

void add_product(const RowShape& shape, PanelRow acc, PanelRow a, double scale, PanelRow b) {
  shape.wide ? add_product_as<Fp64>(shape, acc, a, scale, b) : add_product_as<Fp32>(shape, acc, a, scale, b);
}

void add_gained(const RowShape& shape, PanelRow acc, PanelRow base, PanelRow change, PanelRow gain,
                double weight) {
  shape.wide ? add_gained_as<Fp64>(shape, acc, base, change, gain, weight)
             : add_gained_as<Fp32>(shape, acc, base, change, gain, weight);
}

void sum_lanes(const RowShape& shape, PanelRow base, PanelRow change, double* lanes) {
  shape.wide ? sum_lanes_as<Fp64>(shape, base, change, lanes)
             : sum_lanes_as<Fp32>(shape, base, change, lanes);
}

void sum_columns(const RowShape& shape, PanelRow base, PanelRow change, double* sums) {
  shape.wide ? sum_columns_as<Fp64>(shape, base, change, sums)
             : sum_columns_as<Fp32>(shape, base, change, sums);
}

constexpr ElementOps kOps{add_scaled, add_product, add_gained, sum_lanes, sum_columns, fuse_row_avx2};

}  // namespace

const ElementOps* avx2_element_ops() {
  return &kOps;
}

}  // namespace lora_mmap

#else

namespace lora_mmap {

const ElementOps* avx2_element_ops() {
  return nullptr;
}

}  // namespace lora_mmap

#endif  // __AVX2__
