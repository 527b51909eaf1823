// How the blocks of corrections.h are written, for an instruction set to instantiate with its ways. In an
// unnamed namespace for the reason given in fuse/tile.h.
//
// Ways has: Gathered<Number>(steps, nonzero, blocks), what is not zero of up to kGathered blocks, whose
// take(block, nonzero), asked for each in turn, is a Sparse: `numbers`, folded, `positions` in the block,
// their count `set` and `any`, all numbers or'ed; Wider<>(numbers, set), whose than(width), asked with
// falling widths, is how many need more bits; put_numbers(numbers, set, width, out), number - 1 in `width`
// bits each, all of them set for those that need more; and put_escaped<Number>(numbers, set, width, out),
// these as they are. Both return the byte after the last and may write up to 64 bytes behind it.
#pragma once

#include <cstdint>
#include <cstring>

#include "undo/bit_steps.h"
#include "undo/corrections.h"

namespace lora_mmap {
namespace {

constexpr int64_t kWords = kCorrectionBlock / 64;  // of a block's mask
constexpr int64_t kRaw = 255;
constexpr int64_t kGathered = 16;  // blocks

constexpr int64_t bytes_of_bits(int64_t bits) {
  return (bits + 7) / 8;
}

// Whether positions are a byte each.
constexpr bool lists_positions(int64_t set, int64_t size) {
  return set <= bytes_of_bits(size);
}

constexpr int64_t position_nbytes(int64_t set, int64_t size) {
  return lists_positions(set, size) ? set : bytes_of_bits(size);
}

// How many bits a number takes that is not zero.
constexpr int width_of(uint32_t number) {
  return 32 - __builtin_clz(number);
}

// The width in which numbers take the fewest bits, and how many do not fit in it.
struct Width {
  int bits;
  int64_t escaped;
};

// Narrower ones spare each number some bits, but escape one at least.
template <class Ways, class Number, class Wide>
Width best_width(const Wide* numbers, int64_t set, int widest) {
  constexpr int kBits = sizeof(Number) * 8;
  Width best{widest, 0};
  if ((widest - 1) * set <= kBits) return best;
  typename Ways::template Wider<Wide> wider(numbers, set);
  int64_t least = set * widest;
  for (int width = widest - 1; width > 0; --width) {
    const int64_t escaped = wider.than(width);
    const int64_t bits = set * width + escaped * kBits;
    if (bits < least) {
      least = bits;
      best = {width, escaped};
    }
    if (escaped * kBits > least) break;
  }
  return best;
}

template <class Number>
uint8_t* put_raw(const Number* block, int64_t size, uint8_t* out) {
  *out++ = kRaw;
  for (int64_t i = 0; i < size; ++i, out += sizeof(Number)) {
    const Number number = folded(block[i]);
    std::memcpy(out, &number, sizeof(number));
  }
  return out;
}

// What is not zero of a block.
template <class Number>
struct Sparse {
  const Number* numbers;
  const uint8_t* positions;
  int64_t set;
  Number any;
};

template <class Ways, class Number, class Wide>
uint8_t* put_block(const Number* block, const uint64_t* nonzero, const Sparse<Wide>& sparse, int64_t size,
                   uint8_t* out) {
  const int64_t set = sparse.set;
  if (set == 0) {
    *out = 0;
    return out + 1;
  }
  if (set >= kRaw) return put_raw(block, size, out);
  const auto* numbers = sparse.numbers;
  const Width width = best_width<Ways, Number>(numbers, set, width_of(sparse.any));
  const int64_t positions = position_nbytes(set, size);
  const int64_t number_nbytes = sizeof(Number);
  const int64_t nbytes = 1 + positions + bytes_of_bits(set * width.bits) + width.escaped * number_nbytes;
  if (nbytes >= size * number_nbytes) return put_raw(block, size, out);

  *out++ = static_cast<uint8_t>(set);
  *out++ = static_cast<uint8_t>(width.bits);
  const void* from = lists_positions(set, size) ? static_cast<const void*>(sparse.positions) : nonzero;
  std::memcpy(out, from, kCorrectionBlock / 8);  // the most that they are
  out = Ways::put_numbers(numbers, set, width.bits, out + positions);
  return width.escaped ? Ways::template put_escaped<Number>(numbers, set, width.bits, out) : out;
}

template <class Ways, class Number>
size_t encode_as(const Number* steps, const uint64_t* nonzero, int64_t count, uint8_t* out) {
  static_assert(kWords == 4);
  uint8_t* end = out;
  bool any = false;
  for (int64_t first = 0; first < count; first += kGathered * kCorrectionBlock) {
    const int64_t left = (count - first + kCorrectionBlock - 1) / kCorrectionBlock;
    const int64_t blocks = left < kGathered ? left : kGathered;
    typename Ways::template Gathered<Number> gathered(steps + first, nonzero, blocks);
    for (int64_t b = 0; b < blocks; ++b, nonzero += kWords) {
      const int64_t at = first + b * kCorrectionBlock;
      const int64_t size = count - at < kCorrectionBlock ? count - at : kCorrectionBlock;
      const auto sparse = gathered.take(steps + at, nonzero);
      end = put_block<Ways>(steps + at, nonzero, sparse, size, end);
      any |= sparse.set != 0;
    }
  }
  return any ? static_cast<size_t>(end - out) : 0;
}

}  // namespace
}  // namespace lora_mmap
