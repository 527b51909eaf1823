#include <cmath>
#include <cstring>

#include "base/elements.h"
#include "branch/branch_ops.h"
#include "branch/tile_layout.h"

namespace lora_mmap {
namespace {

template <class From, class To>
bool scaled_row(const void* from, void* to, int64_t count, float scale) {
  const auto* in = static_cast<const std::byte*>(from);
  auto* out = static_cast<std::byte*>(to);
  bool finite = true;
  for (int64_t i = 0; i < count; ++i) {
    typename From::Bits bits;
    std::memcpy(&bits, in + i * static_cast<int64_t>(sizeof(bits)), sizeof(bits));
    const typename To::Bits rounded = To::round(From::widen(bits) * scale);
    finite &= std::isfinite(To::widen(rounded));
    std::memcpy(out + i * static_cast<int64_t>(sizeof(rounded)), &rounded, sizeof(rounded));
  }
  return !finite;
}

template <class From>
ScaledRow scaled_row_to(DType to) {
  switch (to) {
    case DType::F16:
      return scaled_row<From, F16Element>;
    case DType::BF16:
      return scaled_row<From, BF16Element>;
    default:
      return scaled_row<From, F32Element>;
  }
}

ScaledRow find_scaled_row(DType from, DType to) {
  switch (from) {
    case DType::F16:
      return scaled_row_to<F16Element>(to);
    case DType::BF16:
      return scaled_row_to<BF16Element>(to);
    default:
      return scaled_row_to<F32Element>(to);
  }
}

template <class Pair>
void pack_tile(const std::byte* const* rows, int64_t offset, std::byte* to) {
  constexpr auto kPair = static_cast<int64_t>(sizeof(Pair));
  for (int64_t n = 0; n < kTile; ++n) {
    Pair pairs[kTile / 2];
    std::memcpy(pairs, rows[n] + offset, sizeof(pairs));
    for (int64_t i = 0; i < kTile / 2; ++i)
      std::memcpy(to + (row_offset(n) + column_offset(2 * i)) / 2 * kPair, &pairs[i], sizeof(Pair));
  }
}

template <class Pair>
void pack_tiles(const std::byte* const* rows, int64_t offset, int64_t count, std::byte* to, int64_t pitch) {
  constexpr auto kRowNbytes = static_cast<int64_t>(kTile / 2 * sizeof(Pair));
  for (int64_t i = 0; i < count; ++i) pack_tile<Pair>(rows, offset + i * kRowNbytes, to + i * pitch);
}

}  // namespace

const BranchOps& scalar_branch_ops() {
  static const BranchOps ops{find_scaled_row, pack_tiles<uint32_t>, pack_tiles<uint64_t>, [] {}};
  return ops;
}

}  // namespace lora_mmap
