// From what stands in weights to what is wanted there, tile by tile: fused, undone, or switched in one pass.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "fuse/job.h"
#include "fuse/scratch.h"
#include "undo/record.h"

namespace lora_mmap {

// Values at a rectangle's elements; without data: none. Strides in elements.
struct Values {
  const void* data = nullptr;
  int64_t row_stride = 0;
  int64_t col_stride = 0;
};

// What terms made of a weight, or are to make of it.
struct Layer {
  std::vector<Term> terms;
  std::shared_ptr<Record> record;
  // Old: the pristine values; without them they come back from W' by terms and corrections. New: what the
  // terms are added to; without them the pristine values.
  Values values;
};

struct Target {
  void* data;
  int64_t row_stride;
  int64_t col_stride;
};

// One rectangle of a weight. Pointers are borrowed for the duration of a call.
struct Step {
  void* weight;  // aligned to its element
  int64_t rows;
  int64_t cols;
  int64_t row_stride;  // in elements, of either sign
  int64_t col_stride;
  DType dtype;
  std::optional<Layer> old;   // absent: the weight is pristine
  std::optional<Layer> next;  // absent: it becomes that again
  std::optional<Target> out;  // where pristine values go instead of the weight, which keeps what it has
};

// A tile that holds something else than what its record has the hash of.
struct ForeignTile {
  int64_t step;
  int64_t row;
  int64_t col;
  auto operator<=>(const ForeignTile&) const = default;
};

struct StepResult {
  std::vector<int64_t> overflowed;   // steps in which a result is not finite where its base is, ascending
  std::vector<ForeignTile> foreign;  // ascending; the call stops at the first, others may have been found
};

// Takes every tile of every step, on up to `threads` threads, from `old` (skipped unless its record says
// written) to `next` (skipped if its record says so already):
//
//   W0 = the weight, or, checked by its hash unless `force`, old.values or round(W' - acc(old)) + corrections
//   W' = round(x + acc(next)), x = next.values or W0; the bits of x where it is not finite or there are no
//        terms. The record keeps the hash of W' and the corrections, unless it has them from before (undone).
//
// A tile is written last, and then its records say so: after any failure each is entirely old or entirely
// new, and a call with the two exchanged takes it back. Bits depend on neither `threads` nor `isa` nor the
// scratch, which is that of fuse(). Throws Error(Fault::argument) before the first byte is written if a step
// makes no sense; std::bad_alloc where there is no memory for corrections. Steps must not overlap.
StepResult step(const std::vector<Step>& steps, int threads,
                const std::optional<std::string>& isa = std::nullopt, size_t scratch_nbytes = kScratchNbytes,
                bool force = false);

}  // namespace lora_mmap
