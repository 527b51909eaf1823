#include "fuse/element_avx2.h"
#include "fuse/tile_avx2.h"
#include "fuse/tile_avx512.h"
#include "undo/packed_tiles.h"
#include "undo/scalar_tiles.h"
#include "undo/tile_kernel.h"

namespace lora_mmap {

const TileKernel& choose_tile_kernel(std::string_view isa) {
  static const ScalarTiles scalar;
  if (isa == "avx512") {
    static const PackedTiles avx512(*avx512_tile_ops(), *avx2_element_ops(), *avx512_row_ops());
    return avx512;
  }
  if (isa == "avx2") {
    static const PackedTiles avx2(*avx2_tile_ops(), *avx2_element_ops(), *avx2_row_ops());
    return avx2;
  }
  return scalar;
}

}  // namespace lora_mmap
