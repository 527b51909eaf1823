// The packed tiles of SVDQuant's 16-bit matrix products: 16 x 16 elements in the order in which a warp's
// threads hold them. Of proj_down, n is the rank and k the feature; of proj_up the other way.
#pragma once

#include <cstdint>

namespace lora_mmap {

constexpr int64_t kTile = 16;
constexpr int64_t kTileElements = kTile * kTile;

constexpr int64_t within_tile(int64_t i) {
  return i & (kTile - 1);
}

// Element (n, k) of a tile, both below 16, lies at row_offset(n) + column_offset(k).
constexpr int64_t row_offset(int64_t n) {
  return (n & 7) << 5 | (n >> 3) << 2;
}

// An even k and the next one are neighbours.
constexpr int64_t column_offset(int64_t k) {
  return (k & 6) << 2 | (k >> 3) << 1 | (k & 1);
}

// The index where the tile begins that has index `i`, which is not negative.
constexpr int64_t tile_begin(int64_t i) {
  return i & -kTile;
}

}  // namespace lora_mmap
