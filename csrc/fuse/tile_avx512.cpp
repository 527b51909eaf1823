#include "fuse/tile_avx512.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)

// GCC 12's own header initialises registers with themselves and warns of it (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include "fuse/format_avx512.h"
#include "fuse/fusing.h"
#include "fuse/pack_avx512.h"
#include "fuse/pipelined_tile.h"

// A tile is 12 rows of two registers: 24 accumulators, two registers of A and one broadcast of B leave five
// of the thirty-two to finish a row of the tile before.
namespace lora_mmap {
namespace {

bool sweep(DType weight, const Sweep& s) {
  switch (weight) {
    case DType::F16:
      return sweep_in_groups<Fusing<Weight<F16>>, 6, 4, 2, 1>(s);
    case DType::BF16:
      return sweep_in_groups<Fusing<Weight<BF16>>, 6, 4, 2, 1>(s);
    case DType::F32:
      return sweep_in_groups<Fusing<Weight<F32>>, 6, 4, 2, 1>(s);
    default:
      return sweep_in_groups<Fusing<Weight<F64>>, 6, 4, 2, 1>(s);
  }
}

constexpr TileOps kOps{12, 128, pack_down_avx512, pack_up_avx512, sweep};

}  // namespace

const TileOps* avx512_tile_ops() {
  return &kOps;
}

}  // namespace lora_mmap

#else

namespace lora_mmap {

const TileOps* avx512_tile_ops() {
  return nullptr;
}

}  // namespace lora_mmap

#endif
