// The register-tile loop for instruction sets with 32 registers. Two tiles share them: while one is summed,
// the rows of the one before are added to the weight between its rank steps, so that conversions, loads and
// stores run in pipes that the FMAs leave free. In an unnamed namespace for the reason given in tile.h.
//
// A format F has: Element, Scalar and Vec (the weight's bits, the compute type, a register of it); kCols, the
// columns of two registers; load, store, broadcast, zero and fma; Row, the bits of kCols results, with
// add_round(elements, low, high), all_finite, store_row, and store_kept for rows that are not finite.
//
// An End is what becomes of sums; Fusing (fusing.h) is one. It has: its Format; its Sweep, with what is
// beside the sums; Place, where the sums of a tile belong there; and, for row `i` of a tile, finish(place, i,
// low, high), which is false where a result is not finite throughout, finish_left for such rows, and
// finish_edge for the first `cols` columns. The latter two are true if a result is not finite where the base
// is.
#pragma once

#include <immintrin.h>

#include <cstdint>

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

// Rows whose results are not finite throughout.
template <class End, int Rows>
struct LeftRows {
  using F = typename End::Format;
  alignas(64) typename F::Scalar sums[Rows * F::kCols];
  uint32_t rows = 0;  // a bit for each

  [[gnu::always_inline]] void keep(int i, typename F::Vec low, typename F::Vec high) {
    F::store(sums + i * F::kCols, low);
    F::store(sums + i * F::kCols + F::kCols / 2, high);
    rows |= 1u << i;
  }

  // True if a result is not finite where the base is.
  [[gnu::noinline]] bool resolve(const typename End::Place& at) {
    bool overflow = false;
    for (; rows; rows &= rows - 1) {
      const int i = __builtin_ctz(rows);
      overflow |= End::finish_left(at, i, low(i), high(i));
    }
    return overflow;
  }

  // The same for the first `cols` columns of every row, all of them being left.
  [[gnu::noinline]] bool resolve_edge(const typename End::Place& at, int64_t cols) const {
    bool overflow = false;
    for (int i = 0; i < Rows; ++i) overflow |= End::finish_edge(at, i, low(i), high(i), cols);
    return overflow;
  }

 private:
  typename F::Vec low(int i) const { return F::load(sums + i * F::kCols); }
  typename F::Vec high(int i) const { return F::load(sums + i * F::kCols + F::kCols / 2); }
};

template <class End, int Rows>
[[gnu::always_inline]] inline void finish_row(const Sums<typename End::Format, Rows>& sums,
                                              const typename End::Place& at, int i,
                                              LeftRows<End, Rows>& left) {
  if (!End::finish(at, i, sums.low[i], sums.high[i])) [[unlikely]]
    left.keep(i, sums.low[i], sums.high[i]);
}

template <class End, int Rows>
[[gnu::always_inline]] inline void finish(const Sums<typename End::Format, Rows>& sums,
                                          const typename End::Place& at, LeftRows<End, Rows>& left) {
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i) finish_row<End, Rows>(sums, at, i, left);
}

// Walks the tiles of a group of rows: panel by panel, within a panel from the first rows to the last, which
// find that panel of A in the nearest cache.
template <class End, int Rows>
class Walk {
 public:
  using F = typename End::Format;
  using Sweep = typename End::Sweep;
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

  [[gnu::always_inline]] typename End::Place place() const { return {s_, tile_ * Rows, col_}; }

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
    const Element* at =
        static_cast<const Element*>(s_.base) + tile_ * Rows * s_.base_row_stride + col_ + kAhead;
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
template <class End, int Rows, class F = typename End::Format>
[[gnu::always_inline]] inline void sum_and_finish(const typename End::Sweep& s, const Walk<End, Rows>& walk,
                                                  Sums<F, Rows>& next, const Sums<F, Rows>& done,
                                                  const typename End::Place& behind,
                                                  LeftRows<End, Rows>& left) {
  walk.prefetch();
  const typename F::Scalar* up = walk.up();
  const typename F::Scalar* down = walk.down();
  next.start(s.first ? nullptr : walk.partial());
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i) {
    if (i < s.rank) next.step(up + i, s.up_stride, down + i * F::kCols);
    finish_row<End, Rows>(done, behind, i, left);
  }
  for (int64_t r = Rows; r < s.rank; ++r) next.step(up + r, s.up_stride, down + r * F::kCols);
}

// The sums alone.
template <class End, int Rows, class F = typename End::Format>
[[gnu::always_inline]] inline void sum(const typename End::Sweep& s, const Walk<End, Rows>& walk,
                                       Sums<F, Rows>& next) {
  next.start(s.first ? nullptr : walk.partial());
  for (int64_t r = 0; r < s.rank; ++r) next.step(walk.up() + r, s.up_stride, walk.down() + r * F::kCols);
}

// The full panels, each tile finished under the next.
template <class End, int Rows>
[[gnu::always_inline]] inline bool sweep_panels(const typename End::Sweep& s, Walk<End, Rows>& walk,
                                                int64_t cols) {
  Sums<typename End::Format, Rows> one, other;
  LeftRows<End, Rows> left;
  bool overflow = false;
  sum(s, walk, one);
  typename End::Place behind = walk.place();
  walk.advance();
  for (;;) {
    if (walk.col() >= cols) {
      finish<End, Rows>(one, behind, left);
      break;
    }
    sum_and_finish(s, walk, other, one, behind, left);
    if (left.rows) [[unlikely]]
      overflow |= left.resolve(behind);
    behind = walk.place();
    walk.advance();
    if (walk.col() >= cols) {
      finish<End, Rows>(other, behind, left);
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
template <class End, int Rows>
[[gnu::noinline]] bool sweep_edge(const typename End::Sweep& s, Walk<End, Rows>& walk) {
  Sums<typename End::Format, Rows> sums;
  LeftRows<End, Rows> left;
  bool overflow = false;
  for (; walk.col() < s.cols; walk.advance()) {
    sum(s, walk, sums);
    sums.store(left.sums);
    overflow |= left.resolve_edge(walk.place(), s.cols - walk.col());
  }
  return overflow;
}

// One rank block of several: sums go on from where the block before left them.
template <class End, int Rows>
[[gnu::noinline]] void sweep_partial(const typename End::Sweep& s, Walk<End, Rows>& walk) {
  Sums<typename End::Format, Rows> sums;
  for (; walk.col() < s.cols; walk.advance()) {
    if (s.ahead) walk.fetch_ahead();
    sum(s, walk, sums);
    sums.store(walk.partial());
  }
}

// The first `tiles_high` * `Rows` rows of the sweep.
template <class End, int Rows>
bool sweep_rows(const typename End::Sweep& sweep, int tiles_high) {
  const typename End::Sweep s = sweep;  // local: no store to the weight can change it
  Walk<End, Rows> walk(s, tiles_high);
  if (!s.last) {
    sweep_partial(s, walk);
    return false;
  }
  const int64_t full = s.cols / End::Format::kCols * End::Format::kCols;
  bool overflow = full && sweep_panels(s, walk, full);
  if (full < s.cols) overflow |= sweep_edge(s, walk);
  return overflow;
}

// As many groups of `tiles_high` tiles of `Rows` rows as there are; `s` then names the rest.
template <class End, int Rows>
bool take_groups(typename End::Sweep& s, int tiles_high) {
  using F = typename End::Format;
  const int64_t panels = (s.cols + F::kCols - 1) / F::kCols;
  const int64_t rows = Rows * tiles_high;
  bool overflow = false;
  for (; s.rows >= rows; s.rows -= rows) {
    overflow |= sweep_rows<End, Rows>(s, tiles_high);
    s.up = static_cast<const typename F::Scalar*>(s.up) + rows * s.up_stride;
    End::advance(s, rows);
    s.partial = static_cast<typename F::Scalar*>(s.partial) + rows * F::kCols * panels;
    if (s.ahead) s.ahead = static_cast<const typename F::Element*>(s.ahead) + rows * s.ahead_row_stride;
  }
  return overflow;
}

// All rows of the sweep: in pairs of tiles of the first size, then in tiles of the given sizes, which descend
// to 1.
template <class End, int Rows, int... Fewer>
bool sweep_in_groups(typename End::Sweep s) {
  bool overflow = take_groups<End, Rows>(s, 2);
  overflow |= take_groups<End, Rows>(s, 1);
  ((overflow |= take_groups<End, Fewer>(s, 1)), ...);
  return overflow;
}

}  // namespace
}  // namespace lora_mmap
