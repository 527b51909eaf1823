// Differences between floating-point values counted in steps from one to the next: how a correction is
// stored. In an unnamed namespace: see fuse/tile.h.
#pragma once

#include <limits>
#include <type_traits>

namespace lora_mmap {
namespace {

// The bits as an integer in the order of the values: -0 next below +0, NaNs outermost. Its own inverse.
template <class Bits>
constexpr Bits ordered(Bits bits) {
  using Signed = std::make_signed_t<Bits>;
  constexpr Bits kMagnitude = std::numeric_limits<Bits>::max() >> 1;
  const auto negative = static_cast<Bits>(static_cast<Signed>(bits) >> (sizeof(Bits) * 8 - 1));
  return static_cast<Bits>(bits ^ (negative & kMagnitude));
}

// How many steps up lead from `guess` to `value`, modulo 2^bits: 0 for the same bits, and different for every
// value.
template <class Bits>
constexpr Bits steps_between(Bits guess, Bits value) {
  return static_cast<Bits>(ordered(value) - ordered(guess));
}

// The `value` of steps_between().
template <class Bits>
constexpr Bits apply_steps(Bits guess, Bits steps) {
  return ordered(static_cast<Bits>(ordered(guess) + steps));
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
