// The arithmetic of one tile, for one instruction set. Values of a tile are contiguous, [rows, cols].
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "fuse/kernel.h"
#include "undo/tile_hash.h"

namespace lora_mmap {

// How the pristine values of a tile are reached from what undo() makes of its fused ones: steps_between() of
// each, and a bit for each that is not zero, up to the end of a block of corrections.
struct Corrections {
  void* numbers;
  uint64_t* nonzero;
};

// What a worker works on next: rows of a weight, to be fetched meanwhile. Without data: nothing.
struct Ahead {
  const void* data = nullptr;
  int64_t row_stride = 0;  // in elements; columns are contiguous
};

class TileKernel {
 public:
  virtual ~TileKernel() = default;

  // What the terms of `job` need in a worker's scratch of their own, for one of its tiles.
  virtual size_t scratch_nbytes(const Job& job, const Block& tile) const = 0;

  // fused = round(x + acc), the bits of x where it is not finite. True if another result is not. Under a
  // FloatEnv, as everything here. The job's own base is not read.
  virtual bool fuse(const Job& job, const Block& tile, const void* x, void* fused, const Ahead& ahead,
                    Workspace& workspace) const = 0;

  // The same, and what leads from undo() of `fused` to `pristine`.
  virtual bool fuse(const Job& job, const Block& tile, const void* x, const void* pristine, void* fused,
                    const Corrections& corrections, const Ahead& ahead, Workspace& workspace) const = 0;

  // values = round(values - acc), +0 for -0, where they are finite. No term needs the base.
  virtual void undo(const Job& job, const Block& tile, void* values, const Ahead& ahead,
                    Workspace& workspace) const = 0;

  virtual HashSteps hash() const = 0;
};

// Belongs to choose_kernel() of the same name.
const TileKernel& choose_tile_kernel(std::string_view isa);

}  // namespace lora_mmap
