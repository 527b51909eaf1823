// Arithmetic between rows of a tile and their sums in panels, and what else an instruction set does to a
// tile. The panels are those of the TileOps of the same name, in the weight's own order of columns.
#pragma once

#include <cstdint>

#include "base/dtype.h"
#include "fuse/packed.h"
#include "fuse/panels.h"
#include "undo/corrections.h"
#include "undo/tile_hash.h"

namespace lora_mmap {

// Contiguous rows of elements; x, pristine and fused may be one.
struct RecordedRow {
  int64_t cols;
  const void* x;
  const void* pristine;
  void* fused;
  void* steps;
};

// A sweep that does what record_row does with its sums; strides in elements. The base is what is added to.
struct RecordSweep : Sweep {
  const void* pristine;
  void* steps;
  int64_t pristine_row_stride;
  int64_t steps_row_stride;
};

// Weights are F16, BF16 or F32, except for hash_steps.
struct RowOps {
  // fused = round(x + acc), the bits of x where it is not finite; steps = steps_between(what undo_row makes
  // of fused, pristine). True if a result is not finite where x is.
  bool (*record_row)(DType weight, PanelRow acc, const RecordedRow& row);

  // undone = guess(fused - acc) where `fused` is finite, else its bits; guess() as in weight_format.h.
  void (*undo_row)(DType weight, PanelRow acc, int64_t cols, const void* fused, void* undone);

  // A bit for each of `count` steps, a multiple of 64, that is not zero.
  void (*mark_nonzero)(DType weight, const void* steps, int64_t count, uint64_t* nonzero);

  HashSteps hash_steps;
  EncodeCorrections encode;

  // A sweep as the TileOps' own that ends as undo_row does, from `base` to `weight`; what it returns means
  // nothing.
  bool (*undo_sweep)(DType weight, const Sweep& sweep);

  // One that ends as record_row does, or null: then sums go through memory.
  bool (*record_sweep)(DType weight, const RecordSweep& sweep);
};

const RowOps* avx2_row_ops();
const RowOps* avx512_row_ops();

}  // namespace lora_mmap
