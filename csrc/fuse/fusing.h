// What becomes of sums in a fusion, as an End of pipelined_tile.h has it. In an unnamed namespace for the
// reason given in tile.h.
#pragma once

#include <cstdint>
#include <cstring>

#include "fuse/packed.h"

namespace lora_mmap {
namespace {

// weight = round(base + sums).
template <class F>
struct Fusing {
  using Format = F;
  using Element = typename F::Element;
  using Sweep = lora_mmap::Sweep;

  struct Place {
    const Element* base;
    Element* weight;
    int64_t base_stride;
    int64_t weight_stride;

    Place(const Sweep& s, int64_t row, int64_t col)
        : base(static_cast<const Element*>(s.base) + row * s.base_row_stride + col),
          weight(static_cast<Element*>(s.weight) + row * s.weight_row_stride + col),
          base_stride(s.base_row_stride),
          weight_stride(s.weight_row_stride) {}

    const Element* base_row(int i) const { return base + i * base_stride; }
    Element* weight_row(int i) const { return weight + i * weight_stride; }
  };

  static void advance(Sweep& s, int64_t rows) {
    s.base = static_cast<const Element*>(s.base) + rows * s.base_row_stride;
    s.weight = static_cast<Element*>(s.weight) + rows * s.weight_row_stride;
  }

  // A base that is not finite gives a result that is not.
  [[gnu::always_inline]] static bool finish(const Place& at, int i, typename F::Vec low,
                                            typename F::Vec high) {
    const typename F::Row fused = F::add_round(at.base_row(i), low, high);
    if (!F::all_finite(fused)) [[unlikely]]
      return false;
    F::store_row(at.weight_row(i), fused);
    return true;
  }

  static bool finish_left(const Place& at, int i, typename F::Vec low, typename F::Vec high) {
    return F::store_kept(at.base_row(i), at.weight_row(i), F::add_round(at.base_row(i), low, high));
  }

  // The rest of a row counts as NaN: kept, and never an overflow.
  static bool finish_edge(const Place& at, int i, typename F::Vec low, typename F::Vec high, int64_t cols) {
    const size_t nbytes = static_cast<size_t>(cols) * sizeof(Element);
    Element row[F::kCols];
    std::memset(row, 0xFF, sizeof(row));
    std::memcpy(row, at.base_row(i), nbytes);
    const bool overflow = F::store_kept(row, row, F::add_round(row, low, high));
    std::memcpy(at.weight_row(i), row, nbytes);
    return overflow;
  }
};

}  // namespace
}  // namespace lora_mmap
