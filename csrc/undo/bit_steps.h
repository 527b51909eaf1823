// How a correction is stored: the difference of two values' bits. In an unnamed namespace: see fuse/tile.h.
#pragma once

#include <type_traits>

namespace lora_mmap {
namespace {

// How many numbers lie between `guess` and `value`, modulo 2^bits: 0 for the same bits, and different for
// every value. Few where they have one sign.
template <class Bits>
constexpr Bits steps_between(Bits guess, Bits value) {
  return static_cast<Bits>(value - guess);
}

// The `value` of steps_between().
template <class Bits>
constexpr Bits apply_steps(Bits guess, Bits steps) {
  return static_cast<Bits>(guess + steps);
}

// The number by which steps are stored: small for a few either way, 0 for none.
template <class Bits>
constexpr Bits folded(Bits steps) {
  using Signed = std::make_signed_t<Bits>;
  const auto sign = static_cast<Bits>(static_cast<Signed>(steps) >> (sizeof(Bits) * 8 - 1));
  return static_cast<Bits>(static_cast<Bits>(steps << 1) ^ sign);
}

template <class Bits>
constexpr Bits unfolded(Bits number) {
  const auto sign = static_cast<Bits>(Bits{0} - (number & 1));
  return static_cast<Bits>((number >> 1) ^ sign);
}

}  // namespace
}  // namespace lora_mmap
