// Arithmetic between rows of panels, element by element.
#pragma once

#include <cstdint>

#include "base/dtype.h"
#include "fuse/panels.h"

namespace lora_mmap {

// The rows that one operation takes: `cols` columns in panels of `panel_nbytes`, of doubles where `wide`,
// else of floats. Operations on whole panels touch the padding of the last too.
struct RowShape {
  bool wide;
  int64_t cols;
  int64_t panels;
  int64_t panel_nbytes;
};

// A row of a weight whose only term is a whole matrix without a gain, and the matrix's row.
struct DirectRow {
  const void* base;
  void* weight;
  int64_t cols;        // of all three, each contiguous
  const void* values;  // any alignment
  DType values_dtype;  // F16, BF16 or F32 (F64 for F64 weights)
  bool repeats;        // values[0] serves all columns; it is of the compute type
  bool times_base;
  double scale;
};

// What an instruction set provides. Panels are aligned to 64 bytes. Scales are rounded to the compute type.
struct ElementOps {
  // acc = fma(a, scale, acc)
  void (*add_scaled)(const RowShape& shape, PanelRow acc, PanelRow a, double scale);

  // acc = fma(a * scale, b, acc)
  void (*add_product)(const RowShape& shape, PanelRow acc, PanelRow a, double scale, PanelRow b);

  // acc = fma(fma(gain, base + change, -base), weight, acc)
  void (*add_gained)(const RowShape& shape, PanelRow acc, PanelRow base, PanelRow change, PanelRow gain,
                     double weight);

  // lanes[n % 16] += v * v for v = base + change in fp64; column 0 is a multiple of 16. Without the padding.
  void (*sum_lanes)(const RowShape& shape, PanelRow base, PanelRow change, double* lanes);

  // sums[n] += v * v likewise.
  void (*sum_columns)(const RowShape& shape, PanelRow base, PanelRow change, double* sums);

  // weight = round(base + fma(values, scale, 0)), or fma(values * scale, base, 0) where times_base, without
  // panels in between. True when a result is not finite where the base was.
  bool (*fuse_row)(DType weight, const DirectRow& row);
};

}  // namespace lora_mmap
