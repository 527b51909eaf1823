// Differences between floating-point values counted in steps from one to the next: how a correction is
// stored.
#pragma once

#include <limits>
#include <type_traits>

namespace lora_mmap {

// The bits as an integer in the order of the values: -0 next below +0, NaNs outermost. Its own inverse.
template <class Bits>
constexpr Bits ordered(Bits bits) {
  using Signed = std::make_signed_t<Bits>;
  constexpr Bits kMagnitude = std::numeric_limits<Bits>::max() >> 1;
  const auto negative = static_cast<Bits>(static_cast<Signed>(bits) >> (sizeof(Bits) * 8 - 1));
  return static_cast<Bits>(bits ^ (negative & kMagnitude));
}

// How `value` is reached from `guess`, small for a few steps either way; 0 for the same bits, and different
// for every value.
template <class Bits>
constexpr Bits steps_between(Bits guess, Bits value) {
  using Signed = std::make_signed_t<Bits>;
  const auto steps = static_cast<Bits>(ordered(value) - ordered(guess));
  const auto sign = static_cast<Bits>(static_cast<Signed>(steps) >> (sizeof(Bits) * 8 - 1));
  return static_cast<Bits>(static_cast<Bits>(steps << 1) ^ sign);
}

// The `value` of steps_between().
template <class Bits>
constexpr Bits apply_steps(Bits guess, Bits steps) {
  const auto sign = static_cast<Bits>(Bits{0} - (steps & 1));
  return ordered(static_cast<Bits>(ordered(guess) + static_cast<Bits>((steps >> 1) ^ sign)));
}

}  // namespace lora_mmap
