// The way from a fused value back to what it was made of, one element at a time: by the terms' sum, and by a
// correction where that does not get there.
#pragma once

#include "cuda/kernels/arithmetic.h"
#include "cuda/kernels/table.h"

namespace lora_mmap::cuda {

template <class Format>
constexpr u32 kElementBits = sizeof(typename Format::Bits) * 8;
template <class Format>
constexpr u32 kElementMask = static_cast<u32>((1ull << kElementBits<Format>)-1);

template <class Format>
LORA_MMAP_BOTH u32 round_one(float value) {
  const float values[2] = {value, 0.0F};  // beside an element of 16 bits stands a zero
  return Format::round(values) & kElementMask<Format>;
}

template <class Format>
LORA_MMAP_BOTH bool is_finite_element(u32 bits) {
  return (not_finite<Format>(bits) & kElementMask<Format>) == 0;
}

// base + acc; the bits of a base that is not finite.
template <class Format>
LORA_MMAP_BOTH u32 fused_element(u32 base, float acc, bool& overflow) {
  if (!is_finite_element<Format>(base)) return base;
  const u32 fused = round_one<Format>(add(Format::widen(base, 0), acc));
  overflow |= !is_finite_element<Format>(fused);
  return fused;
}

// What `fused` was made of, as far as its sum with -acc tells. Never -0.
template <class Format>
LORA_MMAP_BOTH u32 undone_element(u32 fused, float acc) {
  if (!is_finite_element<Format>(fused)) return fused;
  const u32 guess = round_one<Format>(add(Format::widen(fused, 0), -acc));
  return guess == 1U << (kElementBits<Format> - 1) ? 0U : guess;
}

// The bits of a number of 2 or 4 bytes as an integer in the order of the values, -0 next below +0. Its own
// inverse, but for bits above the number's.
LORA_MMAP_BOTH u32 ordered_bits(u32 nbytes, u32 bits) {
  const i32 wide = nbytes == 2 ? static_cast<i32>(bits << 16) >> 16 : static_cast<i32>(bits);
  return static_cast<u32>(wide < 0 ? wide ^ (nbytes == 2 ? 0x7FFF : 0x7FFFFFFF) : wide);
}

// From `guess` to `value` in steps from one number to the next; 0 for the same bits alone.
LORA_MMAP_BOTH u32 steps_between(u32 nbytes, u32 guess, u32 value) {
  return ordered_bits(nbytes, value) - ordered_bits(nbytes, guess);
}
LORA_MMAP_BOTH u32 apply_steps(u32 nbytes, u32 guess, u32 steps) {
  const u32 bits = ordered_bits(nbytes, ordered_bits(nbytes, guess) + steps);
  return nbytes == 2 ? bits & 0xFFFFU : bits;
}

// Steps of up to 127 either way as a byte; all others are kEscape, and what they lead to stands elsewhere.
constexpr u32 kEscape = 255;
LORA_MMAP_BOTH u32 byte_of_steps(u32 steps) {
  const u32 byte = steps + 127;
  return byte < kEscape ? byte : kEscape;
}
LORA_MMAP_BOTH u32 steps_of_byte(u32 byte) {
  return byte - 127;
}

}  // namespace lora_mmap::cuda
