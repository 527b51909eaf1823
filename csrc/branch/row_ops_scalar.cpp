#include <cmath>
#include <cstring>

#include "base/half.h"
#include "branch/row_ops.h"
#include "branch/tile_layout.h"

namespace lora_mmap {
namespace {

struct F16 {
  using Bits = uint16_t;
  static float widen(Bits bits) { return f16_to_float(bits); }
  static Bits round(float value) { return float_to_f16(value); }
  static bool is_finite(Bits bits) { return (bits & 0x7C00u) != 0x7C00u; }
};

struct BF16 {
  using Bits = uint16_t;
  static float widen(Bits bits) { return bf16_to_float(bits); }
  static Bits round(float value) { return float_to_bf16(value); }
  static bool is_finite(Bits bits) { return (bits & 0x7F80u) != 0x7F80u; }
};

struct F32 {
  using Bits = float;
  static float widen(Bits value) { return value; }
  static Bits round(float value) { return value; }
  static bool is_finite(Bits value) { return std::isfinite(value); }
};

template <class From, class To>
bool scaled_row(const void* from, void* to, int64_t count, float scale) {
  const auto* in = static_cast<const std::byte*>(from);
  auto* out = static_cast<std::byte*>(to);
  bool finite = true;
  for (int64_t i = 0; i < count; ++i) {
    typename From::Bits bits;
    std::memcpy(&bits, in + i * static_cast<int64_t>(sizeof(bits)), sizeof(bits));
    const typename To::Bits rounded = To::round(From::widen(bits) * scale);
    finite &= To::is_finite(rounded);
    std::memcpy(out + i * static_cast<int64_t>(sizeof(rounded)), &rounded, sizeof(rounded));
  }
  return !finite;
}

template <class From>
ScaledRow scaled_row_to(DType to) {
  switch (to) {
    case DType::F16:
      return scaled_row<From, F16>;
    case DType::BF16:
      return scaled_row<From, BF16>;
    default:
      return scaled_row<From, F32>;
  }
}

ScaledRow find_scaled_row(DType from, DType to) {
  switch (from) {
    case DType::F16:
      return scaled_row_to<F16>(to);
    case DType::BF16:
      return scaled_row_to<BF16>(to);
    default:
      return scaled_row_to<F32>(to);
  }
}

// Two neighbours along k stay neighbours, so a tile moves pair by pair.
template <class Pair>
void pack_tile(const std::byte* const* rows, int64_t tile, std::byte* to) {
  constexpr auto kPair = static_cast<int64_t>(sizeof(Pair));
  for (int64_t n = 0; n < kTile; ++n) {
    Pair pairs[kTile / 2];
    std::memcpy(pairs, rows[n] + tile * static_cast<int64_t>(sizeof(pairs)), sizeof(pairs));
    for (int64_t i = 0; i < kTile / 2; ++i)
      std::memcpy(to + tile_offset(n, 2 * i) / 2 * kPair, &pairs[i], sizeof(Pair));
  }
}

template <class Pair>
void pack_tiles(const std::byte* const* rows, int64_t count, std::byte* to, int64_t pitch) {
  for (int64_t i = 0; i < count; ++i) pack_tile<Pair>(rows, i, to + i * pitch);
}

}  // namespace

const RowOps& scalar_row_ops() {
  static const RowOps ops{find_scaled_row, pack_tiles<uint32_t>, pack_tiles<uint64_t>};
  return ops;
}

}  // namespace lora_mmap
