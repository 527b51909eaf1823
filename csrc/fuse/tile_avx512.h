// Register tiles for AVX-512 F, BW, VL and DQ.
#pragma once

#include "fuse/packed.h"

namespace lora_mmap {

// Null in a build for another architecture. The caller checks that the CPU has the instructions.
const TileOps* avx512_tile_ops();

}  // namespace lora_mmap
