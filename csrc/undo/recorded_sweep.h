// What RowOps::record_row does with sums, as an End (see fuse/pipelined_tile.h): in registers, while the next
// sums are made. Formats are those of recorded_rows.h. In an unnamed namespace: see fuse/tile.h.
#pragma once

#include <cstdint>

#include "fuse/fusing.h"
#include "fuse/pipelined_tile.h"
#include "undo/recorded_rows.h"

namespace lora_mmap {
namespace {

template <class F>
struct Recording {
  using Format = F;
  using Element = typename F::Element;
  using Vec = typename F::Vec;
  using Row = typename F::Row;
  using Sweep = RecordSweep;

  struct Place : Fusing<F>::Place {
    const Element* pristine;
    Element* steps;
    int64_t pristine_stride;
    int64_t steps_stride;

    Place(const RecordSweep& s, int64_t row, int64_t col)
        : Fusing<F>::Place(s, row, col),
          pristine(static_cast<const Element*>(s.pristine) + row * s.pristine_row_stride + col),
          steps(static_cast<Element*>(s.steps) + row * s.steps_row_stride + col),
          pristine_stride(s.pristine_row_stride),
          steps_stride(s.steps_row_stride) {}

    const Element* pristine_row(int i) const { return pristine + i * pristine_stride; }
    Element* steps_row(int i) const { return steps + i * steps_stride; }
  };

  static void advance(RecordSweep& s, int64_t rows) {
    Fusing<F>::advance(s, rows);
    s.pristine = static_cast<const Element*>(s.pristine) + rows * s.pristine_row_stride;
    s.steps = static_cast<Element*>(s.steps) + rows * s.steps_row_stride;
  }

  [[gnu::always_inline]] static bool finish(const Place& at, int i, Vec low, Vec high) {
    const auto fused = F::add_round_wide(at.base_row(i), low, high);
    if (!F::all_finite(fused.row)) [[unlikely]]
      return false;
    const Row origin = F::load_row(at.pristine_row(i));
    F::store_row(at.weight_row(i), fused.row);
    const Row guess = F::guess(F::subtract(fused.low, low), F::subtract(fused.high, high));
    F::store_row(at.steps_row(i), F::steps(guess, origin));
    return true;
  }

  static bool finish_left(const Place& at, int i, Vec low, Vec high) {
    return record_panel<F>({low, high}, at.base_row(i), at.pristine_row(i), at.weight_row(i),
                           at.steps_row(i));
  }

  static bool finish_edge(const Place& at, int i, Vec low, Vec high, int64_t cols) {
    return record_edge<F>({low, high}, at.base_row(i), at.pristine_row(i), at.weight_row(i), at.steps_row(i),
                          cols);
  }
};

}  // namespace
}  // namespace lora_mmap
