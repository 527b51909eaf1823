// The register-tile loop for instruction sets with 32 registers. The sums of a tile go to memory, and its rows
// are added to the weight one by one between the rank steps of the next tile: conversions, loads and stores run
// in pipes that the FMAs leave free. In an unnamed namespace for the reason given in tile.h.
//
// A format F has: Element, Scalar and Vec (the weight's bits, the compute type, a register of it); kCols, the
// columns of two registers; load, store, broadcast, zero and fma; Row, the bits of kCols results, with
// add_round(elements, sums), all_finite, store_row, and store_kept for rows that are not finite.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "fuse/packed.h"

namespace lora_mmap {
namespace {

// One row is two registers. Local to the sweep and unrolled everywhere: it never has an address.
template <class F, int Rows>
struct Accumulators {
  typename F::Vec low[Rows];
  typename F::Vec high[Rows];

  [[gnu::always_inline]] void start(const typename F::Scalar* partial) {
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      low[i] = partial ? F::load(partial + i * F::kCols) : F::zero();
      high[i] = partial ? F::load(partial + i * F::kCols + F::kCols / 2) : F::zero();
    }
  }

  [[gnu::always_inline]] void step(const typename F::Scalar* up, const typename F::Scalar* down) {
    const typename F::Vec down_low = F::load(down);
    const typename F::Vec down_high = F::load(down + F::kCols / 2);
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      const typename F::Vec scaled = F::broadcast(up + i * TileOps::kUpStride);
      low[i] = F::fma(scaled, down_low, low[i]);
      high[i] = F::fma(scaled, down_high, high[i]);
    }
  }

  [[gnu::always_inline]] void store(typename F::Scalar* to) const {
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      F::store(to + i * F::kCols, low[i]);
      F::store(to + i * F::kCols + F::kCols / 2, high[i]);
    }
  }
};

// A tile whose sums are known. weight = round(base + sums) row by row; a row that is not finite throughout is
// left for resolve(), because some of its elements may have to keep the base's bits.
template <class F>
struct SummedTile {
  const typename F::Scalar* sums;
  const typename F::Element* base = nullptr;  // null: there is none yet
  typename F::Element* weight = nullptr;
  int64_t base_stride;
  int64_t weight_stride;
  uint32_t left = 0;  // a bit for each row

  [[gnu::always_inline]] void finish_row(int64_t i) {
    const typename F::Row fused = F::add_round(base + i * base_stride, sums + i * F::kCols);
    if (F::all_finite(fused)) [[likely]]
      F::store_row(weight + i * weight_stride, fused);
    else
      left |= 1u << i;
  }

  // True if a result is not finite where the base is.
  [[gnu::noinline]] bool resolve() const {
    bool overflow = false;
    for (uint32_t rows = left; rows; rows &= rows - 1) {
      const int i = __builtin_ctz(rows);
      const typename F::Element* from = base + i * base_stride;
      overflow |= F::store_kept(from, weight + i * weight_stride, F::add_round(from, sums + i * F::kCols));
    }
    return overflow;
  }
};

// The `cols` columns of an incomplete panel. The rest of a row counts as NaN: kept, and never an overflow.
template <class F>
[[gnu::noinline]] bool finish_edge(const SummedTile<F>& tile, int64_t rows, int64_t cols) {
  using Element = typename F::Element;
  const size_t nbytes = static_cast<size_t>(cols) * sizeof(Element);
  bool overflow = false;
  for (int64_t i = 0; i < rows; ++i) {
    Element row[F::kCols];
    std::memset(row, 0xFF, sizeof(row));
    std::memcpy(row, tile.base + i * tile.base_stride, nbytes);
    overflow |= F::store_kept(row, row, F::add_round(row, tile.sums + i * F::kCols));
    std::memcpy(tile.weight + i * tile.weight_stride, row, nbytes);
  }
  return overflow;
}

// Fetches what the sweep needs a little later, past the end of the rows from the group of rows below. A group
// is as many streams as it has rows, and each stops at every page: more than the hardware prefetcher follows.
template <class F, int Rows>
[[gnu::always_inline]] inline void prefetch(const Sweep& s, int64_t col) {
  constexpr int64_t kRowNbytes = F::kCols * sizeof(typename F::Element);
  constexpr int64_t kAhead = 256 / sizeof(typename F::Element);
  const bool below = col + kAhead >= s.cols;
  const auto* at = static_cast<const typename F::Element*>(s.base) + col + kAhead;
  if (below) at += Rows * s.base_row_stride - s.cols;
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
    const char* row = reinterpret_cast<const char*>(at + i * s.base_row_stride);
#pragma GCC unroll 2
    for (int64_t line = 0; line < kRowNbytes; line += 64) _mm_prefetch(row + line, _MM_HINT_T0);
  }
}

// The first `Rows` rows of the sweep.
template <class F, int Rows>
bool sweep_rows(const Sweep& sweep) {
  using Scalar = typename F::Scalar;
  using Element = typename F::Element;
  const Sweep s = sweep;  // local: no store to the weight can change it
  const auto* up = static_cast<const Scalar*>(s.up);
  const auto* down = static_cast<const Scalar*>(s.down);
  auto* partial = static_cast<Scalar*>(s.partial);
  alignas(64) Scalar sums[Rows * F::kCols];
  SummedTile<F> summed{.sums = sums, .base_stride = s.base_row_stride, .weight_stride = s.weight_row_stride};
  bool overflow = false;
  for (int64_t col = 0; col < s.cols; col += F::kCols) {
    prefetch<F, Rows>(s, col);
    Accumulators<F, Rows> acc;
    acc.start(s.first ? nullptr : partial);
    int64_t r = 0;
    if (summed.base) {
      for (; r < std::min<int64_t>(Rows, s.rank); ++r) {
        acc.step(up + r, down + r * F::kCols);
        summed.finish_row(r);
      }
      for (int64_t i = r; i < Rows; ++i) summed.finish_row(i);
      if (summed.left) [[unlikely]]
        overflow |= summed.resolve();
    }
    for (; r < s.rank; ++r) acc.step(up + r, down + r * F::kCols);
    if (s.last) {
      acc.store(sums);
      summed.base = static_cast<const Element*>(s.base) + col;
      summed.weight = static_cast<Element*>(s.weight) + col;
      summed.left = 0;
    } else {
      acc.store(partial);
    }
    down += s.rank * F::kCols;
    partial += Rows * F::kCols;
  }
  if (!s.last) return false;
  if (const int64_t edge = s.cols % F::kCols) return overflow | finish_edge<F>(summed, Rows, edge);
  for (int64_t i = 0; i < Rows; ++i) summed.finish_row(i);
  return overflow | summed.resolve();
}

// As many groups of `Rows` rows as there are; `s` then names the rest.
template <class F, int Rows>
bool take_groups(Sweep& s) {
  const int64_t panels = (s.cols + F::kCols - 1) / F::kCols;
  bool overflow = false;
  for (; s.rows >= Rows; s.rows -= Rows) {
    overflow |= sweep_rows<F, Rows>(s);
    s.up = static_cast<const typename F::Scalar*>(s.up) + Rows * TileOps::kUpStride;
    s.base = static_cast<const typename F::Element*>(s.base) + Rows * s.base_row_stride;
    s.weight = static_cast<typename F::Element*>(s.weight) + Rows * s.weight_row_stride;
    s.partial = static_cast<typename F::Scalar*>(s.partial) + Rows * F::kCols * panels;
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
