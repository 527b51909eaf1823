// The register-tile loop, for the file of an instruction set to instantiate with its formats. In an unnamed
// namespace: each such file is compiled with flags of its own, and an instantiation that the linker shared
// between files would crash CPUs without the larger set.
//
// A format F has: Element, Scalar and Vec (the weight's bits, the compute type, a register of it); kCols, the
// columns of two registers; load, store, broadcast, zero, fma, add and pin (see below) for registers;
// low(element) and high(element), the two registers that hold kCols elements widened, in the order that
// pack_down gives A; Row, the bits of kCols results, with round, store_row, merge_flags / any_flag over Flags
// that mark the results that are not finite, and store_kept for when some are.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "fuse/packed.h"

namespace lora_mmap {
namespace {

// A tile's accumulators: one row is two registers.
template <class F, int Rows>
struct Tile {
  typename F::Vec low[Rows];
  typename F::Vec high[Rows];
};

// Sums over the rank from `partial`, or from zero without one. The accumulators are local arrays, unrolled:
// they never have an address and stay in registers.
template <class F, int Rows>
[[gnu::always_inline]] inline Tile<F, Rows> multiply(const typename F::Scalar* up, int64_t up_stride,
                                                     const typename F::Scalar* down, int64_t rank,
                                                     const typename F::Scalar* partial) {
  typename F::Vec low[Rows];
  typename F::Vec high[Rows];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
    low[i] = partial ? F::load(partial + i * F::kCols) : F::zero();
    high[i] = partial ? F::load(partial + i * F::kCols + F::kCols / 2) : F::zero();
  }
  for (int64_t r = 0; r < rank; ++r) {
    const typename F::Vec down_low = F::load(down + r * F::kCols);
    const typename F::Vec down_high = F::load(down + r * F::kCols + F::kCols / 2);
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      const typename F::Vec scaled = F::broadcast(up + i * up_stride + r);
      low[i] = F::fma(scaled, down_low, low[i]);
      high[i] = F::fma(scaled, down_high, high[i]);
    }
  }
  Tile<F, Rows> sums;
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
    sums.low[i] = low[i];
    sums.high[i] = high[i];
  }
  return sums;
}

template <class F, int Rows>
[[gnu::always_inline]] inline void store_partial(typename F::Scalar* partial, const Tile<F, Rows>& tile) {
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
    F::store(partial + i * F::kCols, tile.low[i]);
    F::store(partial + i * F::kCols + F::kCols / 2, tile.high[i]);
  }
}

// weight = round(base + acc) for a full tile. A base that is not finite gives a result that is not, so one
// test of the results finds both what to keep and what overflowed. Every load stands before the first store:
// rows a multiple of 4 KiB apart look like one address to the load unit, and a load would wait for the store.
// The pins hold that order, and hold back a compiler that would interleave the rows until it runs out of
// registers.
template <class F, int Rows>
[[gnu::always_inline]] inline bool finish(const typename F::Element* base, int64_t base_stride,
                                          typename F::Element* weight, int64_t weight_stride,
                                          Tile<F, Rows> tile) {
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
    const typename F::Element* row = base + i * base_stride;
    tile.low[i] = F::add(F::low(row), tile.low[i]);
    F::pin(tile.low[i]);
    tile.high[i] = F::add(F::high(row), tile.high[i]);
    F::pin(tile.high[i]);
  }
  typename F::Row fused[Rows];
  typename F::Flags flags{};
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
    fused[i] = F::round(tile.low[i], tile.high[i]);
    F::pin_row(fused[i]);
    flags = F::merge_flags(flags, fused[i]);
  }
  if (!F::any_flag(flags)) [[likely]] {
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) F::store_row(weight + i * weight_stride, fused[i]);
    return false;
  }
  bool overflow = false;
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
    overflow |= F::store_kept(base + i * base_stride, weight + i * weight_stride, fused[i]);
  return overflow;
}

// The same for the `cols` columns of an incomplete panel, the accumulators in memory. The rest of a row
// counts as NaN: kept, and never an overflow.
template <class F>
[[gnu::noinline]] bool finish_edge(const Sweep& s, int64_t rows, int64_t col,
                                   const typename F::Scalar* sums) {
  using Element = typename F::Element;
  const size_t nbytes = static_cast<size_t>(s.cols - col) * sizeof(Element);
  bool overflow = false;
  for (int64_t i = 0; i < rows; ++i, sums += F::kCols) {
    const Tile<F, 1> tile{{F::load(sums)}, {F::load(sums + F::kCols / 2)}};
    Element row[F::kCols];
    std::memset(row, 0xFF, sizeof(row));
    std::memcpy(row, static_cast<const Element*>(s.base) + i * s.base_row_stride + col, nbytes);
    overflow |= finish<F, 1>(row, 0, row, 0, tile);
    std::memcpy(static_cast<Element*>(s.weight) + i * s.weight_row_stride + col, row, nbytes);
  }
  return overflow;
}

// Fetches what the sweep needs a little later, past the end of the rows from the group of rows below. A group
// is as many streams as it has rows, and each stops at every page: more than the hardware prefetcher follows.
template <class F, int Rows>
[[gnu::always_inline]] inline void prefetch(const Sweep& s, int64_t col) {
  if (s.ahead) {
    const auto* ahead = static_cast<const typename F::Element*>(s.ahead) + col;
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i)
      _mm_prefetch(reinterpret_cast<const char*>(ahead + i * s.ahead_row_stride), _MM_HINT_T1);
    return;
  }
  constexpr int64_t kAhead = 256 / sizeof(typename F::Element);
  const bool below = col + kAhead >= s.cols;
  const auto* at = static_cast<const typename F::Element*>(s.base) + col + kAhead;
  if (below) at += Rows * s.base_row_stride - s.cols;
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
    _mm_prefetch(reinterpret_cast<const char*>(at + i * s.base_row_stride), _MM_HINT_T0);
}

// The first `Rows` rows of the sweep.
template <class F, int Rows>
bool sweep_rows(const Sweep& sweep) {
  using Scalar = typename F::Scalar;
  const Sweep s = sweep;  // local: no store to the weight can change it
  const auto* down = static_cast<const Scalar*>(s.down);
  auto* partial = static_cast<Scalar*>(s.partial);
  bool overflow = false;
  for (int64_t col = 0; col < s.cols; col += F::kCols) {
    prefetch<F, Rows>(s, col);
    const Tile<F, Rows> tile = multiply<F, Rows>(static_cast<const Scalar*>(s.up), s.up_stride, down, s.rank,
                                                 s.first ? nullptr : partial);
    const auto* base = static_cast<const typename F::Element*>(s.base) + col;
    auto* weight = static_cast<typename F::Element*>(s.weight) + col;
    if (!s.last) {
      store_partial<F, Rows>(partial, tile);
    } else if (s.cols - col >= F::kCols) [[likely]] {
      overflow |= finish<F, Rows>(base, s.base_row_stride, weight, s.weight_row_stride, tile);
    } else {
      alignas(64) Scalar sums[Rows * F::kCols];
      store_partial<F, Rows>(sums, tile);
      overflow |= finish_edge<F>(sweep, Rows, col, sums);
    }
    down += s.rank * F::kCols;
    partial += Rows * F::kCols;
  }
  return overflow;
}

// As many groups of `Rows` rows as there are; `s` then names the rest.
template <class F, int Rows>
bool take_groups(Sweep& s) {
  const int64_t panels = (s.cols + F::kCols - 1) / F::kCols;
  bool overflow = false;
  for (; s.rows >= Rows; s.rows -= Rows) {
    overflow |= sweep_rows<F, Rows>(s);
    s.up = static_cast<const typename F::Scalar*>(s.up) + Rows * s.up_stride;
    s.base = static_cast<const typename F::Element*>(s.base) + Rows * s.base_row_stride;
    s.weight = static_cast<typename F::Element*>(s.weight) + Rows * s.weight_row_stride;
    s.partial = static_cast<typename F::Scalar*>(s.partial) + Rows * F::kCols * panels;
    if (s.ahead) s.ahead = static_cast<const typename F::Element*>(s.ahead) + Rows * s.ahead_row_stride;
  }
  return overflow;
}

// All rows of the sweep in groups of the given sizes, which descend to 1.
template <class F, int... Rows>
bool sweep_in_groups(Sweep s) {
  bool overflow = false;
  ((overflow |= take_groups<F, Rows>(s)), ...);
  return overflow;
}

}  // namespace
}  // namespace lora_mmap
