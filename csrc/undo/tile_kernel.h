// The arithmetic of one tile, for one instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "fuse/kernel.h"
#include "undo/corrections.h"
#include "undo/tile_hash.h"

namespace lora_mmap {

// Values of a tile: rows of contiguous elements.
struct TileRows {
  std::byte* data = nullptr;
  int64_t stride = 0;  // from row to row, in elements

  std::byte* at(int64_t row, int64_t col, int64_t element_nbytes) const {
    return data + (row * stride + col) * element_nbytes;
  }
};

// How the pristine values of a tile are reached from what undo() makes of its fused ones: steps_between() of
// each, row by row, and a bit for each that is not zero; both have room to the end of a block of corrections.
struct Corrections {
  void* steps;
  uint64_t* nonzero;
};

// Under a FloatEnv. Values that are read and those that are written may be the same. `ahead`: rows that are
// wanted next, to be fetched meanwhile. What a worker has no memory for is found out before the first write.
class TileKernel {
 public:
  virtual ~TileKernel() = default;

  // What the terms of `job` need in a worker's scratch of their own, for one of its tiles.
  virtual size_t scratch_nbytes(const Job& job, const Block& tile) const = 0;

  // fused = round(x + acc), the bits of x where it is not finite. True if another result is not. The job's
  // own base is not read.
  virtual bool fuse(const Job& job, const Block& tile, TileRows x, TileRows fused, TileRows ahead,
                    Workspace& workspace) const = 0;

  // The same, and what leads from undo() of `fused` to `pristine`.
  virtual bool record(const Job& job, const Block& tile, TileRows x, TileRows pristine, TileRows fused,
                      const Corrections& corrections, TileRows ahead, Workspace& workspace) const = 0;

  // undone = guess(fused - acc), as weight_format.h has it, where `fused` is finite, else its bits. No term
  // needs the base.
  virtual void undo(const Job& job, const Block& tile, TileRows fused, TileRows undone, TileRows ahead,
                    Workspace& workspace) const = 0;

  virtual HashSteps hash() const = 0;
  virtual EncodeCorrections encode() const = 0;
};

// Belongs to choose_kernel() of the same name.
const TileKernel& choose_tile_kernel(std::string_view isa);

}  // namespace lora_mmap
