// The loops of RowOps, for the file of an instruction set to instantiate. In an unnamed namespace: see
// fuse/tile.h.
//
// A format F is one of fuse/format_<isa>.h with: keep(guess, fused), the bits of `fused` where they are not
// finite; guess(low, high), as weight_format.h has it; steps(guess, pristine), as steps_between() has them.
// For recorded_sweep.h also add_round_wide(elements, low, high), what add_round() makes and its WideResults.
#pragma once

#include <cstdint>
#include <cstring>

#include "undo/row_ops.h"

namespace lora_mmap {
namespace {

// The sums of kCols columns.
template <class F>
struct PanelSums {
  typename F::Vec low;
  typename F::Vec high;

  [[gnu::always_inline]] static PanelSums of(PanelRow acc, int64_t panel) {
    const auto* from = reinterpret_cast<const typename F::Scalar*>(acc.data + panel * acc.stride);
    return {F::load(from), F::load(from + F::kCols / 2)};
  }
};

template <class F>
[[gnu::always_inline]] inline typename F::Row guess_of(const typename F::Row& fused,
                                                       const PanelSums<F>& acc) {
  return F::guess(F::subtract(F::low(fused), acc.low), F::subtract(F::high(fused), acc.high));
}

// Results that are not finite throughout. True if one is not where x is.
template <class F>
[[gnu::noinline]] bool record_left(const PanelSums<F>& acc, typename F::Row fused,
                                   const typename F::Row& pristine, const typename F::Element* x,
                                   typename F::Element* to, typename F::Element* steps) {
  const bool overflow = F::store_kept(x, to, fused);
  fused = F::load_row(to);
  F::store_row(steps, F::steps(F::keep(guess_of<F>(fused, acc), fused), pristine));
  return overflow;
}

template <class F>
[[gnu::always_inline]] inline bool record_panel(const PanelSums<F>& acc, const typename F::Element* x,
                                                const typename F::Element* pristine, typename F::Element* to,
                                                typename F::Element* steps) {
  const typename F::Row base = F::load_row(x);
  const typename F::Row origin = F::load_row(pristine);
  const typename F::Row fused = F::round(F::add(F::low(base), acc.low), F::add(F::high(base), acc.high));
  if (!F::all_finite(fused)) [[unlikely]]
    return record_left<F>(acc, fused, origin, x, to, steps);
  F::store_row(to, fused);
  F::store_row(steps, F::steps(guess_of<F>(fused, acc), origin));
  return false;
}

// The first `cols` columns of a panel: the rest counts as NaN, kept and exact.
template <class F>
[[gnu::noinline]] bool record_edge(const PanelSums<F>& acc, const typename F::Element* x,
                                   const typename F::Element* pristine, typename F::Element* to,
                                   typename F::Element* steps, int64_t cols) {
  using Element = typename F::Element;
  const size_t nbytes = static_cast<size_t>(cols) * sizeof(Element);
  Element base[F::kCols], origin[F::kCols], fused[F::kCols], made[F::kCols];
  std::memset(base, 0xFF, sizeof(base));
  std::memset(origin, 0xFF, sizeof(origin));
  std::memcpy(base, x, nbytes);
  std::memcpy(origin, pristine, nbytes);
  const bool overflow = record_panel<F>(acc, base, origin, fused, made);
  std::memcpy(to, fused, nbytes);
  std::memcpy(steps, made, nbytes);
  return overflow;
}

template <class F>
bool record_row_as(PanelRow acc, const RecordedRow& row) {
  using Element = typename F::Element;
  const auto* x = static_cast<const Element*>(row.x);
  const auto* pristine = static_cast<const Element*>(row.pristine);
  auto* fused = static_cast<Element*>(row.fused);
  auto* steps = static_cast<Element*>(row.steps);
  bool overflow = false;
  int64_t col = 0;
  for (; col + F::kCols <= row.cols; col += F::kCols)
    overflow |= record_panel<F>(PanelSums<F>::of(acc, col / F::kCols), x + col, pristine + col, fused + col,
                                steps + col);
  if (col < row.cols)
    overflow |= record_edge<F>(PanelSums<F>::of(acc, col / F::kCols), x + col, pristine + col, fused + col,
                               steps + col, row.cols - col);
  return overflow;
}

template <class F>
[[gnu::always_inline]] inline void undo_panel(const PanelSums<F>& acc, const typename F::Element* from,
                                              typename F::Element* to) {
  const typename F::Row fused = F::load_row(from);
  F::store_row(to, F::keep(guess_of<F>(fused, acc), fused));
}

template <class F>
void undo_row_as(PanelRow acc, int64_t cols, const void* fused, void* undone) {
  using Element = typename F::Element;
  const auto* from = static_cast<const Element*>(fused);
  auto* to = static_cast<Element*>(undone);
  int64_t col = 0;
  for (; col + F::kCols <= cols; col += F::kCols)
    undo_panel<F>(PanelSums<F>::of(acc, col / F::kCols), from + col, to + col);
  if (col == cols) return;
  const size_t nbytes = static_cast<size_t>(cols - col) * sizeof(Element);
  Element edge[F::kCols] = {};
  std::memcpy(edge, from + col, nbytes);
  undo_panel<F>(PanelSums<F>::of(acc, col / F::kCols), edge, edge);
  std::memcpy(to + col, edge, nbytes);
}

}  // namespace
}  // namespace lora_mmap
