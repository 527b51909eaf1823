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

__m256i load_bits(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}

template <int N>
void store(void* to, Bits<N> row) {
  for (int i = 0; i < N; ++i) _mm256_storeu_si256(static_cast<__m256i*>(to) + i, row.part[i]);
}

// A format says how the bits of a row become two registers and back.
struct F16 : Fp32 {
  using Element = uint16_t;
  static constexpr int kRegisters = 1;
  using Row = Bits<1>;
  static __m256i exponent() { return _mm256_set1_epi16(0x7C00); }
  static __m256i equal(__m256i a, __m256i b) { return _mm256_cmpeq_epi16(a, b); }
  static Vec low(const Element* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static Vec high(const Element* from) { return low(from + 8); }
  static Row round(Vec low, Vec high) {
    return {_mm256_set_m128i(_mm256_cvtps_ph(high, _MM_FROUND_TO_NEAREST_INT),
                             _mm256_cvtps_ph(low, _MM_FROUND_TO_NEAREST_INT))};
  }
};

// Even columns in the low register, odd ones in the high: widening is a shift and a mask, and no lane is
// crossed on the way back. A is packed in the same order.
struct BF16 : Fp32 {
  using Element = uint16_t;
  static constexpr int kRegisters = 1;
  using Row = Bits<1>;
  static __m256i exponent() { return _mm256_set1_epi16(0x7F80); }
  static __m256i equal(__m256i a, __m256i b) { return _mm256_cmpeq_epi16(a, b); }
  static Vec low(const Element* from) { return _mm256_castsi256_ps(_mm256_slli_epi32(load_bits(from), 16)); }
  static Vec high(const Element* from) {
    return _mm256_castsi256_ps(_mm256_and_si256(load_bits(from), _mm256_set1_epi32(-0x10000)));
  }
  // To nearest, ties to even, in the upper half: x + 0x7FFF + (bit 16 of x). Not VCVTNEPS2BF16, which flushes
  // subnormals. A NaN stays one: those of A and B are canonical (pack_avx2.cpp), those of the base have zeros
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
};

struct F32 : Fp32 {
  using Element = uint32_t;
  static constexpr int kRegisters = 2;
  using Row = Bits<2>;
  static __m256i exponent() { return _mm256_set1_epi32(0x7F800000); }
  static __m256i equal(__m256i a, __m256i b) { return _mm256_cmpeq_epi32(a, b); }
  static Vec low(const Element* from) { return _mm256_loadu_ps(reinterpret_cast<const float*>(from)); }
  static Vec high(const Element* from) { return low(from + 8); }
  static Row round(Vec low, Vec high) { return {_mm256_castps_si256(low), _mm256_castps_si256(high)}; }
};

struct F64 : Fp64 {
  using Element = uint64_t;
  static constexpr int kRegisters = 2;
  using Row = Bits<2>;
  static __m256i exponent() { return _mm256_set1_epi64x(0x7FF0000000000000); }
  static __m256i equal(__m256i a, __m256i b) { return _mm256_cmpeq_epi64(a, b); }
  static Vec low(const Element* from) { return _mm256_loadu_pd(reinterpret_cast<const double*>(from)); }
  static Vec high(const Element* from) { return low(from + 4); }
  static Row round(Vec low, Vec high) { return {_mm256_castpd_si256(low), _mm256_castpd_si256(high)}; }
};

// All ones where the exponent is: infinities and NaNs.
template <class F>
__m256i non_finite(__m256i bits) {
  return F::equal(_mm256_and_si256(bits, F::exponent()), F::exponent());
}

// The rare row in which some result is not finite: stores it with the base's bits where the base already was
// not finite, and returns whether there is an element where it was.
template <class F>
[[gnu::noinline]] bool store_non_finite(const void* base, void* weight, typename F::Row fused) {
  __m256i overflow = _mm256_setzero_si256();
  for (int i = 0; i < F::kRegisters; ++i) {
    const __m256i old = load_bits(static_cast<const __m256i*>(base) + i);
    const __m256i keep = non_finite<F>(old);
    overflow = _mm256_or_si256(overflow, _mm256_andnot_si256(keep, non_finite<F>(fused.part[i])));
    fused.part[i] = _mm256_blendv_epi8(fused.part[i], old, keep);
  }
  store(weight, fused);
  return !_mm256_testz_si256(overflow, overflow);
}

// A tile's accumulators: one row is two registers.
template <class F, int Rows>
struct Tile {
  typename F::Vec low[Rows];
  typename F::Vec high[Rows];
};

// Holds `value` in a register here, with no later load moved above: twelve accumulators leave four registers,
// and a compiler that interleaves the rows spills.
template <class Vec>
[[gnu::always_inline]] inline void pin(Vec& value) {
  asm volatile("" : "+x"(value) : : "memory");
}

// weight = round(base + acc) for a full tile. A base that is not finite gives a result that is not, so one
// test of the results finds both what to keep and what overflowed. Every load stands before the first store:
// rows a multiple of 4 KiB apart look like one address to the load unit, and a load would wait for the store.
template <class F, int Rows>
[[gnu::always_inline]] inline bool finish(const typename F::Element* base, int64_t base_stride,
                                          typename F::Element* weight, int64_t weight_stride,
                                          Tile<F, Rows> tile) {
#pragma GCC unroll 6
  for (int i = 0; i < Rows; ++i) {
    const typename F::Element* row = base + i * base_stride;
    tile.low[i] = F::add(F::low(row), tile.low[i]);
    pin(tile.low[i]);
    tile.high[i] = F::add(F::high(row), tile.high[i]);
    pin(tile.high[i]);
  }
  typename F::Row fused[Rows];
  __m256i suspect = _mm256_setzero_si256();
#pragma GCC unroll 6
  for (int i = 0; i < Rows; ++i) {
    fused[i] = F::round(tile.low[i], tile.high[i]);
#pragma GCC unroll 2
    for (int j = 0; j < F::kRegisters; ++j) {
      suspect = _mm256_or_si256(suspect, non_finite<F>(fused[i].part[j]));
      pin(fused[i].part[j]);
    }
  }
  if (_mm256_testz_si256(suspect, suspect)) [[likely]] {
#pragma GCC unroll 6
    for (int i = 0; i < Rows; ++i) store(weight + i * weight_stride, fused[i]);
    return false;
  }
  bool overflow = false;
#pragma GCC unroll 6
  for (int i = 0; i < Rows; ++i)
    overflow |= store_non_finite<F>(base + i * base_stride, weight + i * weight_stride, fused[i]);
  return overflow;
}

// The same for the `cols` columns of an incomplete panel. The rest of the row counts as NaN: kept, and never
// an overflow.
template <class F, int Rows>
[[gnu::noinline]] bool finish_edge(const typename F::Element* base, int64_t base_stride,
                                   typename F::Element* weight, int64_t weight_stride, int64_t cols,
                                   Tile<F, Rows> tile) {
  const size_t nbytes = static_cast<size_t>(cols) * sizeof(typename F::Element);
  bool overflow = false;
  for (int i = 0; i < Rows; ++i) {
    typename F::Element row[F::kCols];
    std::memset(row, 0xFF, sizeof(row));
    std::memcpy(row, base + i * base_stride, nbytes);
    overflow |= finish<F, 1>(row, 0, row, 0, {{tile.low[i]}, {tile.high[i]}});
    std::memcpy(weight + i * weight_stride, row, nbytes);
  }
  return overflow;
}

// Sums over the rank from `partial`, or from zero without one. The accumulators are local arrays, unrolled:
// they never have an address and stay in registers.
template <class F, int Rows>
[[gnu::always_inline]] inline Tile<F, Rows> multiply(const typename F::Scalar* up,
                                                     const typename F::Scalar* down, int64_t rank,
                                                     const typename F::Scalar* partial) {
  typename F::Vec low[Rows];
  typename F::Vec high[Rows];
#pragma GCC unroll 6
  for (int i = 0; i < Rows; ++i) {
    low[i] = partial ? F::load(partial + i * F::kCols) : F::zero();
    high[i] = partial ? F::load(partial + i * F::kCols + F::kCols / 2) : F::zero();
  }
#ifdef UNROLL
#pragma GCC unroll 4
#endif
  for (int64_t r = 0; r < rank; ++r) {
    const typename F::Vec down_low = F::load(down + r * F::kCols);
    const typename F::Vec down_high = F::load(down + r * F::kCols + F::kCols / 2);
#pragma GCC unroll 6
    for (int i = 0; i < Rows; ++i) {
      const typename F::Vec scaled = F::broadcast(up + i * TileOps::kUpStride + r);
      low[i] = F::fma(scaled, down_low, low[i]);
      high[i] = F::fma(scaled, down_high, high[i]);
    }
  }
  Tile<F, Rows> sums;
#pragma GCC unroll 6
  for (int i = 0; i < Rows; ++i) {
    sums.low[i] = low[i];
    sums.high[i] = high[i];
  }
  return sums;
}

#ifndef PF_BYTES
#define PF_BYTES 256
#endif

// Fetches what the sweep needs `kAhead` bytes of columns later, past the end of the rows from the group of
// rows below. Six rows are six streams that stop at every page: more than the hardware prefetcher keeps up
// with.
template <class F, int Rows>
[[gnu::always_inline]] inline void prefetch(const Sweep& s, int64_t col) {
  constexpr int64_t kAhead = PF_BYTES / sizeof(typename F::Element);
  const bool below = col + kAhead >= s.cols;
  const auto* at = static_cast<const typename F::Element*>(s.base) + col + kAhead;
  if (below) at += kRows * s.base_row_stride - s.cols;
#pragma GCC unroll 6
  for (int i = 0; i < Rows; ++i)
    _mm_prefetch(reinterpret_cast<const char*>(at + i * s.base_row_stride), _MM_HINT_T0);
}

template <class F, int Rows>
bool sweep_rows(const Sweep& sweep) {
  using Scalar = typename F::Scalar;
  const Sweep s = sweep;  // local: no store to the weight can change it
  const auto* down = static_cast<const Scalar*>(s.down);
  auto* partial = static_cast<Scalar*>(s.partial);
  bool overflow = false;
  for (int64_t col = 0; col < s.cols; col += F::kCols) {
    prefetch<F, Rows>(s, col);
    const Tile<F, Rows> tile =
        multiply<F, Rows>(static_cast<const Scalar*>(s.up), down, s.rank, s.first ? nullptr : partial);
    const auto* base = static_cast<const typename F::Element*>(s.base) + col;
    auto* weight = static_cast<typename F::Element*>(s.weight) + col;
    if (!s.last) {
#pragma GCC unroll 6
      for (int i = 0; i < Rows; ++i) {
        F::store(partial + i * F::kCols, tile.low[i]);
        F::store(partial + i * F::kCols + F::kCols / 2, tile.high[i]);
      }
    } else if (s.cols - col >= F::kCols) {
      overflow |= finish<F, Rows>(base, s.base_row_stride, weight, s.weight_row_stride, tile);
    } else {
      overflow |=
          finish_edge<F, Rows>(base, s.base_row_stride, weight, s.weight_row_stride, s.cols - col, tile);
    }
    down += s.rank * F::kCols;
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
