// The packed tiles of SVDQuant's 16-bit matrix products: 16 x 16 elements in the order in which a warp's
// threads hold them. Of proj_down, n is the rank and k the feature; of proj_up the other way.
#pragma once

#include <cstdint>

namespace lora_mmap {

constexpr int64_t kTile = 16;
constexpr int64_t kTileElements = kTile * kTile;

// Where element (n, k) of a tile lies, both below 16.
constexpr int64_t tile_offset(int64_t n, int64_t k) {
  return n % 8 * 32 + k % 8 / 2 * 8 + n / 8 * 4 + k / 8 * 2 + k % 2;
}

// The index where the tile begins that has index `i`.
constexpr int64_t tile_begin(int64_t i) {
  return i / kTile * kTile;
}

}  // namespace lora_mmap
