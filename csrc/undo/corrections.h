// The corrections of a tile as bytes: a sparse row of numbers, most of them zero, in blocks of 256.
//
// A block begins with the count of its numbers that are not zero. 0: nothing follows. 255: all numbers of
// the block follow as they are. Otherwise: the width w; where they are, a byte each, or a bit for each
// number of the block in whole bytes where that is shorter; each number - 1 in w bits, the first in the
// lowest; numbers that do not fit in w bits have all of them set, and follow as they are after the last
// byte of those. The last block may be shorter.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"

namespace lora_mmap {

constexpr int64_t kCorrectionBlock = 256;

// What encode_corrections() writes at most for `count` numbers of `number_nbytes` bytes, with what it may
// leave behind them.
constexpr size_t most_coded_nbytes(int64_t count, size_t number_nbytes) {
  const int64_t blocks = (count + kCorrectionBlock - 1) / kCorrectionBlock;
  return static_cast<size_t>(blocks) + static_cast<size_t>(count) * number_nbytes + 64;
}

// The blocks of `count` steps (steps_between() of bit_steps.h) one after the other, each folded() to a
// number; the number of bytes written, 0 if all steps are zero. Steps are uint32_t for F32 weights, uint16_t
// for others, and readable to the end of the last block. `nonzero`: a bit for each, the first in the lowest
// of the first word, zeros to the end of the last block. All instruction sets write the same bytes.
using EncodeCorrections = size_t (*)(DType weight, const void* steps, const uint64_t* nonzero, int64_t count,
                                     uint8_t* out);
size_t encode_corrections(DType weight, const void* steps, const uint64_t* nonzero, int64_t count,
                          uint8_t* out);

// Guesses as they stand in memory: rows of contiguous elements, counted row by row.
template <class Number>
struct Guesses {
  Number* data;
  int64_t rows;
  int64_t cols;
  int64_t row_stride;  // in elements
};

// Corrects guesses by what encode_corrections() wrote for as many.
template <class Number>
void apply_corrections(const uint8_t* coded, size_t coded_nbytes, const Guesses<Number>& guesses);

}  // namespace lora_mmap
