#include "fuse/tile_avx2.h"

#if defined(__AVX2__)

#include <immintrin.h>

#include <cstring>

#include "fuse/pack_avx2.h"

// A tile is 6 rows of two registers: 12 accumulators, enough to cover two FMA pipes of latency 4 to 5, and
// with two registers of A and one broadcast of B just within the sixteen.
//
// Everything here has internal linkage: an inline function compiled with these flags and kept by the linker
// for the whole program would crash older CPUs.
namespace lora_mmap {
namespace {

constexpr int kRows = 6;

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
};

// The bits of one row of a tile.
template <int N>
struct Bits {
  __m256i part[N];
};

// A format says how the bits of a row become two registers and back. `round` may lose a NaN where
// `may_lose_nan` says that there is one; `round_any` never does.
struct F16 : Fp32 {
  using Element = uint16_t;
  using Row = Bits<1>;
  static __m256i exponent() { return _mm256_set1_epi16(0x7C00); }
  static __m256i equal(__m256i a, __m256i b) { return _mm256_cmpeq_epi16(a, b); }
  static void widen(Row row, Vec& low, Vec& high) {
    low = _mm256_cvtph_ps(_mm256_castsi256_si128(row.part[0]));
    high = _mm256_cvtph_ps(_mm256_extracti128_si256(row.part[0], 1));
  }
  static Row round(Vec low, Vec high) {
    return {_mm256_set_m128i(_mm256_cvtps_ph(high, _MM_FROUND_TO_NEAREST_INT),
                             _mm256_cvtps_ph(low, _MM_FROUND_TO_NEAREST_INT))};
  }
  static Row round_any(Vec low, Vec high) { return round(low, high); }
  static __m256i may_lose_nan(Vec, Vec) { return _mm256_setzero_si256(); }
};

// Even columns in the low register, odd ones in the high: widening is a shift and a mask, and no lane is
// crossed on the way back. A is packed in the same order.
struct BF16 : Fp32 {
  using Element = uint16_t;
  using Row = Bits<1>;
  static __m256i exponent() { return _mm256_set1_epi16(0x7F80); }
  static __m256i equal(__m256i a, __m256i b) { return _mm256_cmpeq_epi16(a, b); }
  static void widen(Row row, Vec& low, Vec& high) {
    low = _mm256_castsi256_ps(_mm256_slli_epi32(row.part[0], 16));
    high = _mm256_castsi256_ps(_mm256_and_si256(row.part[0], _mm256_set1_epi32(-0x10000)));
  }
  // To nearest, ties to even, in the upper half: x + 0x7FFF + (bit 16 of x). Not VCVTNEPS2BF16, which flushes
  // subnormals. A NaN with a payload near all ones would carry into the sign.
  static __m256i round_up(Vec value) {
    const __m256i x = _mm256_castps_si256(value);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(x, 16), _mm256_set1_epi32(1));
    return _mm256_add_epi32(_mm256_add_epi32(x, _mm256_set1_epi32(0x7FFF)), odd);
  }
  static Row merge(__m256i low, __m256i high) {
    return {_mm256_blend_epi16(_mm256_srli_epi32(low, 16), high, 0xAA)};
  }
  static Row round(Vec low, Vec high) { return merge(round_up(low), round_up(high)); }
  static Row round_any(Vec low, Vec high) { return merge(round_or_nan(low), round_or_nan(high)); }
  static __m256i round_or_nan(Vec value) {
    const __m256i quiet = _mm256_or_si256(_mm256_castps_si256(value), _mm256_set1_epi32(0x400000));
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(round_up(value), quiet, is_nan);
  }
  static __m256i may_lose_nan(Vec low, Vec high) {
    return _mm256_castps_si256(_mm256_cmp_ps(low, high, _CMP_UNORD_Q));
  }
};

struct F32 : Fp32 {
  using Element = uint32_t;
  using Row = Bits<2>;
  static __m256i exponent() { return _mm256_set1_epi32(0x7F800000); }
  static __m256i equal(__m256i a, __m256i b) { return _mm256_cmpeq_epi32(a, b); }
  static void widen(Row row, Vec& low, Vec& high) {
    low = _mm256_castsi256_ps(row.part[0]);
    high = _mm256_castsi256_ps(row.part[1]);
  }
  static Row round(Vec low, Vec high) { return {_mm256_castps_si256(low), _mm256_castps_si256(high)}; }
  static Row round_any(Vec low, Vec high) { return round(low, high); }
  static __m256i may_lose_nan(Vec, Vec) { return _mm256_setzero_si256(); }
};

struct F64 : Fp64 {
  using Element = uint64_t;
  using Row = Bits<2>;
  static __m256i exponent() { return _mm256_set1_epi64x(0x7FF0000000000000); }
  static __m256i equal(__m256i a, __m256i b) { return _mm256_cmpeq_epi64(a, b); }
  static void widen(Row row, Vec& low, Vec& high) {
    low = _mm256_castsi256_pd(row.part[0]);
    high = _mm256_castsi256_pd(row.part[1]);
  }
  static Row round(Vec low, Vec high) { return {_mm256_castpd_si256(low), _mm256_castpd_si256(high)}; }
  static Row round_any(Vec low, Vec high) { return round(low, high); }
  static __m256i may_lose_nan(Vec, Vec) { return _mm256_setzero_si256(); }
};

template <int N>
Bits<N> load(const void* from) {
  Bits<N> row;
  for (int i = 0; i < N; ++i) row.part[i] = _mm256_loadu_si256(static_cast<const __m256i*>(from) + i);
  return row;
}

template <int N>
void store(void* to, Bits<N> row) {
  for (int i = 0; i < N; ++i) _mm256_storeu_si256(static_cast<__m256i*>(to) + i, row.part[i]);
}

// All ones where the exponent is: infinities and NaNs.
template <class F>
__m256i non_finite(__m256i bits) {
  return F::equal(_mm256_and_si256(bits, F::exponent()), F::exponent());
}

// The rare row in which some result is not finite: keeps the base's bits where the base already was not, and
// returns whether there is an element where it was.
template <class F>
[[gnu::noinline]] bool finish_non_finite(const void* base, void* weight, typename F::Vec low,
                                         typename F::Vec high) {
  constexpr int N = sizeof(typename F::Row) / sizeof(__m256i);
  const Bits<N> old = load<N>(base);
  Bits<N> fused = F::round_any(low, high);
  __m256i overflow = _mm256_setzero_si256();
  for (int i = 0; i < N; ++i) {
    const __m256i keep = non_finite<F>(old.part[i]);
    overflow = _mm256_or_si256(overflow, _mm256_andnot_si256(keep, non_finite<F>(fused.part[i])));
    fused.part[i] = _mm256_blendv_epi8(fused.part[i], old.part[i], keep);
  }
  store(weight, fused);
  return !_mm256_testz_si256(overflow, overflow);
}

// weight = round(base + acc) for one row of a tile. A base that is not finite gives a result that is not, so
// one test of the result finds both cases.
template <class F>
inline bool finish(const void* base, void* weight, typename F::Vec acc_low, typename F::Vec acc_high) {
  constexpr int N = sizeof(typename F::Row) / sizeof(__m256i);
  typename F::Vec low, high;
  F::widen(load<N>(base), low, high);
  low = F::add(low, acc_low);
  high = F::add(high, acc_high);
  const Bits<N> fused = F::round(low, high);
  __m256i suspect = F::may_lose_nan(low, high);
  for (int i = 0; i < N; ++i) suspect = _mm256_or_si256(suspect, non_finite<F>(fused.part[i]));
  if (!_mm256_testz_si256(suspect, suspect)) [[unlikely]]
    return finish_non_finite<F>(base, weight, low, high);
  store(weight, fused);
  return false;
}

// The same for the `cols` columns that are left. The rest of the row counts as NaN: kept, never an overflow.
template <class F>
[[gnu::noinline]] bool finish_edge(const void* base, void* weight, int64_t cols, typename F::Vec low,
                                   typename F::Vec high) {
  typename F::Row row;
  const size_t nbytes = static_cast<size_t>(cols) * sizeof(typename F::Element);
  std::memset(&row, 0xFF, sizeof(row));
  std::memcpy(&row, base, nbytes);
  const bool overflow = finish<F>(&row, &row, low, high);
  std::memcpy(weight, &row, nbytes);
  return overflow;
}

template <class F, int Rows>
struct Tile {
  typename F::Vec acc[Rows][2];

  void clear() {
    for (auto& row : acc) row[0] = row[1] = F::zero();
  }

  void load(const typename F::Scalar* from) {
    for (int i = 0; i < Rows; ++i)
      for (int j = 0; j < 2; ++j) acc[i][j] = F::load(from + (2 * i + j) * (F::kCols / 2));
  }

  void store(typename F::Scalar* to) const {
    for (int i = 0; i < Rows; ++i)
      for (int j = 0; j < 2; ++j) F::store(to + (2 * i + j) * (F::kCols / 2), acc[i][j]);
  }

  void multiply(const typename F::Scalar* up, const typename F::Scalar* down, int64_t rank) {
    for (int64_t r = 0; r < rank; ++r, ++up, down += F::kCols) {
      const typename F::Vec low = F::load(down);
      const typename F::Vec high = F::load(down + F::kCols / 2);
#pragma GCC unroll 6
      for (int i = 0; i < Rows; ++i) {
        const typename F::Vec scaled = F::broadcast(up + i * TileOps::kUpStride);
        acc[i][0] = F::fma(scaled, low, acc[i][0]);
        acc[i][1] = F::fma(scaled, high, acc[i][1]);
      }
    }
  }
};

#ifndef PF_BYTES
#define PF_BYTES 256
#endif

template <class F, int Rows>
bool sweep_rows(const Sweep& s) {
  using Scalar = typename F::Scalar;
  constexpr int64_t kPrefetch = PF_BYTES / sizeof(typename F::Element);
  const auto* base = static_cast<const typename F::Element*>(s.base);
  auto* weight = static_cast<typename F::Element*>(s.weight);
  const auto* up = static_cast<const Scalar*>(s.up);
  const auto* down = static_cast<const Scalar*>(s.down);
  auto* partial = static_cast<Scalar*>(s.partial);
  bool overflow = false;
  for (int64_t col = 0; col < s.cols; col += F::kCols) {
    Tile<F, Rows> tile;
    // Six rows are six streams that stop at every page: more than the hardware prefetcher keeps up with.
    for (int i = 0; i < Rows; ++i)
      _mm_prefetch(reinterpret_cast<const char*>(base + i * s.base_row_stride + col + kPrefetch),
                   _MM_HINT_T0);
    if (s.first)
      tile.clear();
    else
      tile.load(partial);
    tile.multiply(up, down, s.rank);
    down += s.rank * F::kCols;
    if (!s.last) {
      tile.store(partial);
    } else if (s.cols - col >= F::kCols) {
#pragma GCC unroll 6
      for (int i = 0; i < Rows; ++i)
        overflow |= finish<F>(base + i * s.base_row_stride + col, weight + i * s.weight_row_stride + col,
                              tile.acc[i][0], tile.acc[i][1]);
    } else {
      for (int i = 0; i < Rows; ++i)
        overflow |= finish_edge<F>(base + i * s.base_row_stride + col, weight + i * s.weight_row_stride + col,
                                   s.cols - col, tile.acc[i][0], tile.acc[i][1]);
    }
    partial += kRows * F::kCols;
  }
  return overflow;
}

template <class F>
bool sweep_format(const Sweep& s) {
  switch (s.rows) {
    case 1:
      return sweep_rows<F, 1>(s);
    case 2:
      return sweep_rows<F, 2>(s);
    case 3:
      return sweep_rows<F, 3>(s);
    case 4:
      return sweep_rows<F, 4>(s);
    case 5:
      return sweep_rows<F, 5>(s);
    default:
      return sweep_rows<F, 6>(s);
  }
}

bool sweep(DType weight, const Sweep& s) {
  switch (weight) {
    case DType::F16:
      return sweep_format<F16>(s);
    case DType::BF16:
      return sweep_format<BF16>(s);
    case DType::F32:
      return sweep_format<F32>(s);
    default:
      return sweep_format<F64>(s);
  }
}

constexpr TileOps kOps{kRows, 64, pack_down_avx2, pack_up_avx2, sweep};

}  // namespace

const TileOps* avx2_tile_ops() {
  return &kOps;
}

}  // namespace lora_mmap

#else

namespace lora_mmap {

const TileOps* avx2_tile_ops() {
  return nullptr;
}

}  // namespace lora_mmap

#endif  // __AVX2__
