#include "undo/corrections.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "undo/ordered_bits.h"

namespace lora_mmap {
namespace {

constexpr int64_t kWords = kCorrectionBlock / 64;  // of a block's mask
constexpr int64_t kRaw = 255;

constexpr size_t bytes_of_bits(int64_t bits) {
  return static_cast<size_t>((bits + 7) / 8);
}

// Whether positions are a byte each.
constexpr bool lists_positions(int64_t set, int64_t size) {
  return static_cast<size_t>(set) <= bytes_of_bits(size);
}

// The numbers of a block that are not zero, and where they are.
template <class Number>
struct Sparse {
  std::array<Number, kCorrectionBlock> numbers;
  std::array<uint8_t, kCorrectionBlock> positions;
  int64_t set = 0;

  Sparse(const Number* block, const uint64_t* nonzero) {
    for (int64_t word = 0; word < kWords; ++word)
      for (uint64_t bits = nonzero[word]; bits; bits &= bits - 1) {
        const int64_t at = word * 64 + std::countr_zero(bits);
        positions[static_cast<size_t>(set)] = static_cast<uint8_t>(at);
        numbers[static_cast<size_t>(set++)] = block[at];
      }
  }
};

// The width of the widest of `set` numbers: it escapes none of them.
template <class Number>
int widest_of(const Number* numbers, int64_t set) {
  Number any = 0;
  for (int64_t i = 0; i < set; ++i) any = static_cast<Number>(any | numbers[i]);
  return std::bit_width(any);
}

// Narrower ones spare each number some bits, but escape one at least.
template <class Number>
bool is_best(int widest, int64_t set) {
  return (widest - 1) * set <= static_cast<int64_t>(sizeof(Number)) * 8;
}

// The width in which `set` numbers take the fewest bits.
template <class Number>
int best_width(const Number* numbers, int64_t set, int widest) {
  constexpr int kBits = sizeof(Number) * 8;
  std::array<uint16_t, kBits + 1> of_width{};
  for (int64_t i = 0; i < set; ++i) ++of_width[static_cast<size_t>(std::bit_width(numbers[i]))];
  int best = widest;
  int64_t least = set * widest;
  int64_t escaped = 0;
  for (int width = widest; width > 1;) {
    escaped += of_width[static_cast<size_t>(width--)];
    const int64_t bits = set * width + escaped * kBits;
    if (bits < least) {
      least = bits;
      best = width;
    }
    if (escaped * kBits > least) break;
  }
  return best;
}

// Numbers of up to 32 bits, the first in the lowest bits.
class BitWriter {
 public:
  explicit BitWriter(uint8_t* out) : out_(out) {}

  void put(uint64_t value, int width) {
    waiting_ |= value << filled_;
    filled_ += width;
    for (; filled_ >= 8; filled_ -= 8, waiting_ >>= 8) *out_++ = static_cast<uint8_t>(waiting_);
  }

  // The byte after the last.
  uint8_t* end() {
    if (filled_ > 0) *out_++ = static_cast<uint8_t>(waiting_);
    return out_;
  }

 private:
  uint8_t* out_;
  uint64_t waiting_ = 0;
  int filled_ = 0;
};

class BitReader {
 public:
  explicit BitReader(const uint8_t* in) : in_(in) {}

  uint64_t take(int width) {
    for (; filled_ < width; filled_ += 8) waiting_ |= uint64_t{*in_++} << filled_;
    const uint64_t value = waiting_ & ((uint64_t{1} << width) - 1);
    waiting_ >>= width;
    filled_ -= width;
    return value;
  }

 private:
  const uint8_t* in_;
  uint64_t waiting_ = 0;
  int filled_ = 0;
};

template <class Number>
uint8_t* put_numbers(const Number* numbers, int64_t set, int width, uint8_t* out) {
  const uint64_t escape = (uint64_t{1} << width) - 1;
  BitWriter bits(out);
  for (int64_t i = 0; i < set; ++i) bits.put(std::min<uint64_t>(uint64_t{numbers[i]} - 1, escape), width);
  return bits.end();
}

template <class Number>
int64_t count_escaped(const Number* numbers, int64_t set, int width) {
  const uint64_t escape = (uint64_t{1} << width) - 1;
  return std::count_if(numbers, numbers + set, [&](Number number) { return uint64_t{number} - 1 >= escape; });
}

template <class Number>
uint8_t* put_escaped(const Number* numbers, int64_t set, int width, uint8_t* out) {
  const uint64_t escape = (uint64_t{1} << width) - 1;
  for (int64_t i = 0; i < set; ++i)
    if (uint64_t{numbers[i]} - 1 >= escape) {
      std::memcpy(out, numbers + i, sizeof(Number));
      out += sizeof(Number);
    }
  return out;
}

template <class Number>
uint8_t* put_raw(const Number* block, int64_t size, uint8_t* out) {
  *out++ = kRaw;
  std::memcpy(out, block, static_cast<size_t>(size) * sizeof(Number));
  return out + static_cast<size_t>(size) * sizeof(Number);
}

template <class Number>
uint8_t* put_block(const Number* block, const uint64_t* nonzero, int64_t size, uint8_t* out) {
  const Sparse<Number> sparse(block, nonzero);
  const int64_t set = sparse.set;
  if (set == 0) {
    *out = 0;
    return out + 1;
  }
  const size_t raw_nbytes = static_cast<size_t>(size) * sizeof(Number);
  const size_t position_nbytes = std::min(static_cast<size_t>(set), bytes_of_bits(size));
  if (set >= kRaw) return put_raw(block, size, out);
  const Number* numbers = sparse.numbers.data();
  const int widest = widest_of(numbers, set);
  const int width = is_best<Number>(widest, set) ? widest : best_width(numbers, set, widest);
  const int64_t escaped = width == widest ? 0 : count_escaped(numbers, set, width);
  const size_t nbytes =
      1 + position_nbytes + bytes_of_bits(set * width) + static_cast<size_t>(escaped) * sizeof(Number);
  if (nbytes >= raw_nbytes) return put_raw(block, size, out);

  *out++ = static_cast<uint8_t>(set);
  *out++ = static_cast<uint8_t>(width);
  const void* positions = lists_positions(set, size) ? static_cast<const void*>(sparse.positions.data())
                                                     : static_cast<const void*>(nonzero);
  std::memcpy(out, positions, position_nbytes);
  out = put_numbers(numbers, set, width, out + position_nbytes);
  return escaped ? put_escaped(numbers, set, width, out) : out;
}

// The guesses of one block.
template <class Number>
class BlockGuesses {
 public:
  BlockGuesses(const Guesses<Number>& all, int64_t first, int64_t size)
      : all_(all), first_(first), in_one_row_(first % all.cols + size <= all.cols) {
    row_ = all.data + first / all.cols * all.row_stride + first % all.cols;
  }

  Number& operator[](int64_t i) const {
    if (in_one_row_) return row_[i];
    return all_.data[(first_ + i) / all_.cols * all_.row_stride + (first_ + i) % all_.cols];
  }

 private:
  const Guesses<Number>& all_;
  int64_t first_;
  bool in_one_row_;
  Number* row_;
};

template <class Number>
const uint8_t* apply_raw(const uint8_t* in, const BlockGuesses<Number>& guesses, int64_t size) {
  for (int64_t i = 0; i < size; ++i, in += sizeof(Number)) {
    Number number;
    std::memcpy(&number, in, sizeof(Number));
    guesses[i] = apply_steps(guesses[i], number);
  }
  return in;
}

// Positions listed, or those of the bits set in a block's mask.
class Positions {
 public:
  Positions(const uint8_t* in, int64_t set, int64_t size) : list_(lists_positions(set, size) ? in : nullptr) {
    if (!list_) std::memcpy(mask_, in, bytes_of_bits(size));
  }

  int64_t next() {
    if (list_) return *list_++;
    while (!mask_[word_]) ++word_;
    const int64_t at = word_ * 64 + std::countr_zero(mask_[word_]);
    mask_[word_] &= mask_[word_] - 1;
    return at;
  }

 private:
  const uint8_t* list_;
  uint64_t mask_[kWords] = {};
  int64_t word_ = 0;
};

template <class Number>
const uint8_t* apply_block(const uint8_t* in, const BlockGuesses<Number>& guesses, int64_t size) {
  const int64_t set = *in++;
  if (set == 0) return in;
  if (set == kRaw) return apply_raw(in, guesses, size);
  const int width = *in++;
  Positions positions(in, set, size);
  in += std::min(static_cast<size_t>(set), bytes_of_bits(size));
  const uint8_t* escapes = in + bytes_of_bits(set * width);
  const uint64_t escape = (uint64_t{1} << width) - 1;
  BitReader bits(in);
  for (int64_t i = 0; i < set; ++i) {
    const uint64_t less_one = bits.take(width);
    auto number = static_cast<Number>(less_one + 1);
    if (less_one == escape) {
      std::memcpy(&number, escapes, sizeof(Number));
      escapes += sizeof(Number);
    }
    Number& guess = guesses[positions.next()];
    guess = apply_steps(guess, number);
  }
  return escapes;
}

}  // namespace

template <class Number>
size_t encode_corrections(const Number* numbers, const uint64_t* nonzero, int64_t count, uint8_t* out) {
  uint8_t* end = out;
  bool any = false;
  for (int64_t at = 0; at < count; at += kCorrectionBlock, nonzero += kWords) {
    const uint8_t* begin = end;
    end = put_block(numbers + at, nonzero, std::min(kCorrectionBlock, count - at), end);
    any |= *begin != 0;
  }
  return any ? static_cast<size_t>(end - out) : 0;
}

template <class Number>
void apply_corrections(const uint8_t* coded, size_t coded_nbytes, const Guesses<Number>& guesses) {
  if (coded_nbytes == 0) return;
  const int64_t count = guesses.rows * guesses.cols;
  for (int64_t at = 0; at < count; at += kCorrectionBlock) {
    const int64_t size = std::min(kCorrectionBlock, count - at);
    coded = apply_block(coded, BlockGuesses<Number>(guesses, at, size), size);
  }
}

template size_t encode_corrections(const uint16_t*, const uint64_t*, int64_t, uint8_t*);
template size_t encode_corrections(const uint32_t*, const uint64_t*, int64_t, uint8_t*);
template void apply_corrections(const uint8_t*, size_t, const Guesses<uint16_t>&);
template void apply_corrections(const uint8_t*, size_t, const Guesses<uint32_t>&);

}  // namespace lora_mmap
