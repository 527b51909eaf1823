// One tile on its way from old to new terms.
#pragma once

#include <cstddef>

#include "fuse/kernel.h"
#include "undo/prepared_step.h"
#include "undo/record.h"
#include "undo/tile_kernel.h"

namespace lora_mmap {

// What a worker lends the tiles that it takes.
struct TileScratch {
  Workspace values;   // the tile's own, see ValuesLayout
  Workspace old;      // of the old terms
  Workspace next;     // of the new terms
  CodingSpace coded;  // what comes of its corrections
};

enum class TileOutcome { done, overflowed, foreign };

// The bytes of `values` and `coded` that one tile of up to `elements` elements takes.
size_t tile_values_nbytes(DType dtype, int64_t elements);

// Takes tile `index` of `step` as step() has it, under a FloatEnv. Nothing of it is written if it is foreign
// or this throws. `next`: the tile that this worker takes next, or -1.
TileOutcome take_tile(const TileKernel& kernel, const PreparedStep& step, int64_t index, int64_t next,
                      bool force, TileScratch& scratch);

}  // namespace lora_mmap
