// What stands in tiles of a weight that lie beside each other, by their hashes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "fuse/job.h"
#include "fuse/kernel.h"
#include "undo/tile_hash.h"

namespace lora_mmap {

// Where a weight's elements lie; strides in elements.
struct WeightElements {
  const std::byte* data;
  int64_t row_stride;
  int64_t col_stride;
  int64_t element_nbytes;
};

// Reads along the weight's rows through all tiles at once: tile after tile takes half as long again, because
// memory is then asked for in pieces that are too short. Not thread-safe; keeps its memory from call to call.
class StripHashes {
 public:
  // The hash of each of `tiles` (rows and columns of the weight), which have the same rows; until the next
  // call.
  const std::vector<uint64_t>& of(const WeightElements& weight, const std::vector<Block>& tiles,
                                  HashSteps take);

 private:
  uint64_t of_one(const WeightElements& weight, const Block& tile, HashSteps take);

  std::vector<uint64_t> values_;
  std::vector<HashInPieces> pieces_;
  Workspace dense_;
};

}  // namespace lora_mmap
