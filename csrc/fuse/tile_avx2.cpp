#include "fuse/tile_avx2.h"

#if defined(__AVX2__)

#include "fuse/format_avx2.h"
#include "fuse/pack_avx2.h"
#include "fuse/tile.h"

// A tile is 6 rows of two registers: 12 accumulators, enough to cover two FMA pipes of latency 4 to 5, and
// with two registers of A and one broadcast of B just within the sixteen.
namespace lora_mmap {
namespace {

bool sweep(DType weight, const Sweep& s) {
  switch (weight) {
    case DType::F16:
      return sweep_in_groups<Weight<F16>, 6, 4, 2, 1>(s);
    case DType::BF16:
      return sweep_in_groups<Weight<BF16>, 6, 4, 2, 1>(s);
    case DType::F32:
      return sweep_in_groups<Weight<F32>, 6, 4, 2, 1>(s);
    default:
      return sweep_in_groups<Weight<F64>, 6, 4, 2, 1>(s);
  }
}

constexpr TileOps kOps{6, 64, pack_down_avx2, pack_up_avx2, sweep};

}  // namespace

const TileOps* avx2_tile_ops() {
  return &kOps;
}

}  // namespace lora_mmap

#else

namespace lora_mmap {

const TileOps* avx2_tile_ops() {
  return nullptr;
}

}  // namespace lora_mmap

#endif  // __AVX2__
