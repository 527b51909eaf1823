// Register tiles for AVX2 + FMA + F16C.
#pragma once

#include "fuse/packed.h"

namespace lora_mmap {

// Null in a build for another architecture. The caller checks that the CPU has the instructions.
const TileOps* avx2_tile_ops();

}  // namespace lora_mmap
