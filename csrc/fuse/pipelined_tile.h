// The register-tile loop for instruction sets with 32 registers. Two tiles share them: while one is summed,
// the rows of the one before are added to the weight between its rank steps, so that conversions, loads and
// stores run in pipes that the FMAs leave free. In an unnamed namespace for the reason given in tile.h.
//
// A format F has: Element, Scalar and Vec (the weight's bits, the compute type, a register of it); kCols, the
// columns of two registers; load, store, broadcast, zero and fma; Row, the bits of kCols results, with
// add_round(elements, low, high), all_finite, store_row, and store_kept for rows that are not finite.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "fuse/packed.h"

namespace lora_mmap {
namespace {

// The accumulators of a tile; a row is two registers. Unrolled everywhere, so that it never has an address.
template <class F, int Rows>
struct Sums {
  typename F::Vec low[Rows];
  typename F::Vec high[Rows];

  [[gnu::always_inline]] void start(const typename F::Scalar* partial) {
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) {
      low[i] = partial ? F::load(partial + i * F::kCols) : F::zero();
      high[i] = partial ? F::load(partial + i * F::kCols + F::kCols / 2) : F::zero();
    }
  }

  [[gnu::always_inline]] void step(const typename F::Scalar* up, int64_t up_stride,
                                   const typename F::Scalar* down) {
    const typename F::Vec down_low = F::load(down);
    const typename F::Vec down_high = F::load(down + F::kCols / 2);
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) {
      const typename F::Vec scaled = F::broadcast(up + i * up_stride);
      low[i] = F::fma(scaled, down_low, low[i]);
      high[i] = F::fma(scaled, down_high, high[i]);
    }
  }

  [[gnu::always_inline]] void store(typename F::Scalar* to) const {
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) {
      F::store(to + i * F::kCols, low[i]);
      F::store(to + i * F::kCols + F::kCols / 2, high[i]);
    }
  }
};

// Where the sums of a tile belong.
template <class F>
struct Place {
  const typename F::Element* base;
  typename F::Element* weight;
  int64_t base_stride;
  int64_t weight_stride;
};

// Rows whose results are not finite throughout: some of their elements may have to keep the base's bits.
template <class F, int Rows>
struct LeftRows {
  alignas(64) typename F::Scalar sums[Rows * F::kCols];
  uint32_t rows = 0;  // a bit for each

  // True if a result is not finite where the base is.
  [[gnu::noinline]] bool resolve(const Place<F>& at) {
    bool overflow = false;
    for (; rows; rows &= rows - 1) {
      const int i = __builtin_ctz(rows);
      const typename F::Element* base = at.base + i * at.base_stride;
      overflow |= F::store_kept(base, at.weight + i * at.weight_stride, fused(base, i));
    }
    return overflow;
  }

  // The same for the first `cols` columns of every row, all of them being left. The rest of a row counts as
  // NaN: kept, and never an overflow.
  [[gnu::noinline]] bool resolve_edge(const Place<F>& at, int64_t cols) const {
    const size_t nbytes = static_cast<size_t>(cols) * sizeof(typename F::Element);
    bool overflow = false;
    for (int i = 0; i < Rows; ++i) {
      typename F::Element row[F::kCols];
      std::memset(row, 0xFF, sizeof(row));
      std::memcpy(row, at.base + i * at.base_stride, nbytes);
      overflow |= F::store_kept(row, row, fused(row, i));
      std::memcpy(at.weight + i * at.weight_stride, row, nbytes);
    }
    return overflow;
  }

 private:
  typename F::Row fused(const typename F::Element* base, int i) const {
    const typename F::Scalar* row = sums + i * F::kCols;
    return F::add_round(base, F::load(row), F::load(row + F::kCols / 2));
  }
};

// weight = round(base + sums) for row `i`. A base that is not finite gives a result that is not.
template <class F, int Rows>
[[gnu::always_inline]] inline void finish_row(const Sums<F, Rows>& sums, const Place<F>& at, int i,
                                              LeftRows<F, Rows>& left) {
  const typename F::Row fused = F::add_round(at.base + i * at.base_stride, sums.low[i], sums.high[i]);
  if (F::all_finite(fused)) [[likely]] {
    F::store_row(at.weight + i * at.weight_stride, fused);
  } else {
    F::store(left.sums + i * F::kCols, sums.low[i]);
    F::store(left.sums + i * F::kCols + F::kCols / 2, sums.high[i]);
    left.rows |= 1u << i;
  }
}

template <class F, int Rows>
[[gnu::always_inline]] inline void finish(const Sums<F, Rows>& sums, const Place<F>& at,
                                          LeftRows<F, Rows>& left) {
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i) finish_row(sums, at, i, left);
}

// Walks the tiles of a group of rows: panel by panel, within a panel from the first rows to the last, which
// find that panel of A in the nearest cache.
template <class F, int Rows>
class Walk {
 public:
  using Scalar = typename F::Scalar;
  using Element = typename F::Element;

  Walk(const Sweep& s, int tiles_high)
      : s_(s),
        tiles_high_(tiles_high),
        crowded_(s.base_row_stride * static_cast<int64_t>(sizeof(Element)) % 4096 == 0) {
    down_ = static_cast<const Scalar*>(s.down);
    partial_ = static_cast<Scalar*>(s.partial);
  }

  [[gnu::always_inline]] int64_t col() const { return col_; }

  [[gnu::always_inline]] void advance() {
    partial_ += Rows * F::kCols;
    if (++tile_ < tiles_high_) return;
    tile_ = 0;
    col_ += F::kCols;
    down_ += s_.rank * F::kCols;
  }

  [[gnu::always_inline]] const Scalar* up() const {
    return static_cast<const Scalar*>(s_.up) + tile_ * Rows * s_.up_stride;
  }
  [[gnu::always_inline]] const Scalar* down() const { return down_; }
  [[gnu::always_inline]] Scalar* partial() const { return partial_; }

  [[gnu::always_inline]] Place<F> place() const {
    return {static_cast<const Element*>(s_.base) + tile_ * Rows * s_.base_row_stride + col_,
            static_cast<Element*>(s_.weight) + tile_ * Rows * s_.weight_row_stride + col_, s_.base_row_stride,
            s_.weight_row_stride};
  }

  // Fetches what the walk needs a little later, past the end of the rows from the group of rows below. A
  // group is as many streams as it has rows, and each stops at every page: more than the hardware prefetcher
  // follows.
  [[gnu::always_inline]] void prefetch() const {
    if (s_.ahead)
      fetch_ahead();
    else if (crowded_)
      prefetch_lines<_MM_HINT_T1, 2048>();
    else
      prefetch_lines<_MM_HINT_T0, 512>();
  }

  [[gnu::always_inline]] void fetch_ahead() const {
    const Element* at = static_cast<const Element*>(s_.ahead) + tile_ * Rows * s_.ahead_row_stride + col_;
    prefetch_rows<_MM_HINT_T1>(at, s_.ahead_row_stride);
  }

 private:
  template <_mm_hint Hint, int64_t AheadNbytes>
  [[gnu::always_inline]] void prefetch_lines() const {
    constexpr int64_t kAhead = AheadNbytes / sizeof(Element);
    const Element* at = place().base + kAhead;
    if (col_ + kAhead >= s_.cols) at += tiles_high_ * Rows * s_.base_row_stride - s_.cols;
    prefetch_rows<Hint>(at, s_.base_row_stride);
  }

  template <_mm_hint Hint>
  [[gnu::always_inline]] static void prefetch_rows(const Element* at, int64_t row_stride) {
    constexpr int64_t kRowNbytes = F::kCols * sizeof(Element);
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) {
      const char* row = reinterpret_cast<const char*>(at + i * row_stride);
#pragma GCC unroll 4
      for (int64_t line = 0; line < kRowNbytes; line += 64) _mm_prefetch(row + line, Hint);
    }
  }

  const Sweep& s_;
  const int tiles_high_;
  const bool crowded_;  // the rows are whole pages apart: their lines compete for one set of L1, and lose
  int tile_ = 0;
  int64_t col_ = 0;
  const Scalar* down_;
  Scalar* partial_;
};

// `next` becomes the sums of the tile that the walk is at, while the rows of `done` go to the weight.
template <class F, int Rows>
[[gnu::always_inline]] inline void sum_and_finish(const Sweep& s, const Walk<F, Rows>& walk,
                                                  Sums<F, Rows>& next, const Sums<F, Rows>& done,
                                                  const Place<F>& behind, LeftRows<F, Rows>& left) {
  walk.prefetch();
  const typename F::Scalar* up = walk.up();
  const typename F::Scalar* down = walk.down();
  next.start(s.first ? nullptr : walk.partial());
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i) {
    if (i < s.rank) next.step(up + i, s.up_stride, down + i * F::kCols);
    finish_row(done, behind, i, left);
  }
  for (int64_t r = Rows; r < s.rank; ++r) next.step(up + r, s.up_stride, down + r * F::kCols);
}

// The sums alone.
template <class F, int Rows>
[[gnu::always_inline]] inline void sum(const Sweep& s, const Walk<F, Rows>& walk, Sums<F, Rows>& next) {
  next.start(s.first ? nullptr : walk.partial());
  for (int64_t r = 0; r < s.rank; ++r) next.step(walk.up() + r, s.up_stride, walk.down() + r * F::kCols);
}

// The full panels, each tile finished under the next.
template <class F, int Rows>
[[gnu::always_inline]] inline bool sweep_panels(const Sweep& s, Walk<F, Rows>& walk, int64_t cols) {
  Sums<F, Rows> one, other;
  LeftRows<F, Rows> left;
  bool overflow = false;
  sum(s, walk, one);
  Place<F> behind = walk.place();
  walk.advance();
  for (;;) {
    if (walk.col() >= cols) {
      finish(one, behind, left);
      break;
    }
    sum_and_finish(s, walk, other, one, behind, left);
    if (left.rows) [[unlikely]]
      overflow |= left.resolve(behind);
    behind = walk.place();
    walk.advance();
    if (walk.col() >= cols) {
      finish(other, behind, left);
      break;
    }
    sum_and_finish(s, walk, one, other, behind, left);
    if (left.rows) [[unlikely]]
      overflow |= left.resolve(behind);
    behind = walk.place();
    walk.advance();
  }
  return overflow | left.resolve(behind);
}

// The last panel where it is incomplete.
template <class F, int Rows>
[[gnu::noinline]] bool sweep_edge(const Sweep& s, Walk<F, Rows>& walk) {
  Sums<F, Rows> sums;
  LeftRows<F, Rows> left;
  bool overflow = false;
  for (; walk.col() < s.cols; walk.advance()) {
    sum(s, walk, sums);
    sums.store(left.sums);
    overflow |= left.resolve_edge(walk.place(), s.cols - walk.col());
  }
  return overflow;
}

// One rank block of several: sums go on from where the block before left them.
template <class F, int Rows>
[[gnu::noinline]] void sweep_partial(const Sweep& s, Walk<F, Rows>& walk) {
  Sums<F, Rows> sums;
  for (; walk.col() < s.cols; walk.advance()) {
    if (s.ahead) walk.fetch_ahead();
    sum(s, walk, sums);
    sums.store(walk.partial());
  }
}

// The first `tiles_high` * `Rows` rows of the sweep.
template <class F, int Rows>
bool sweep_rows(const Sweep& sweep, int tiles_high) {
  const Sweep s = sweep;  // local: no store to the weight can change it
  Walk<F, Rows> walk(s, tiles_high);
  if (!s.last) {
    sweep_partial(s, walk);
    return false;
  }
  const int64_t full = s.cols / F::kCols * F::kCols;
  bool overflow = full && sweep_panels(s, walk, full);
  if (full < s.cols) overflow |= sweep_edge(s, walk);
  return overflow;
}

// As many groups of `tiles_high` tiles of `Rows` rows as there are; `s` then names the rest.
template <class F, int Rows>
bool take_groups(Sweep& s, int tiles_high) {
  const int64_t panels = (s.cols + F::kCols - 1) / F::kCols;
  const int64_t rows = Rows * tiles_high;
  bool overflow = false;
  for (; s.rows >= rows; s.rows -= rows) {
    overflow |= sweep_rows<F, Rows>(s, tiles_high);
    s.up = static_cast<const typename F::Scalar*>(s.up) + rows * s.up_stride;
    s.base = static_cast<const typename F::Element*>(s.base) + rows * s.base_row_stride;
    s.weight = static_cast<typename F::Element*>(s.weight) + rows * s.weight_row_stride;
    s.partial = static_cast<typename F::Scalar*>(s.partial) + rows * F::kCols * panels;
    if (s.ahead) s.ahead = static_cast<const typename F::Element*>(s.ahead) + rows * s.ahead_row_stride;
  }
  return overflow;
}

// All rows of the sweep: in pairs of tiles of the first size, then in tiles of the given sizes, which descend
// to 1.
template <class F, int Rows, int... Fewer>
bool sweep_in_groups(Sweep s) {
  bool overflow = take_groups<F, Rows>(s, 2);
  overflow |= take_groups<F, Rows>(s, 1);
  ((overflow |= take_groups<F, Fewer>(s, 1)), ...);
  return overflow;
}

}  // namespace
}  // namespace lora_mmap
