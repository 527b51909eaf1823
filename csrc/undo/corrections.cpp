#include "undo/corrections.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "undo/bit_steps.h"
#include "undo/coded_blocks.h"

namespace lora_mmap {
namespace {

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

struct Scalar {
  // One block at a time.
  template <class Number>
  class Gathered {
   public:
    Gathered(const Number*, const uint64_t*, int64_t) {}

    Sparse<Number> take(const Number* block, const uint64_t* nonzero) {
      Sparse<Number> sparse{numbers_, positions_, 0, 0};
      for (int64_t word = 0; word < kWords; ++word)
        for (uint64_t bits = nonzero[word]; bits; bits &= bits - 1) {
          const int64_t at = word * 64 + std::countr_zero(bits);
          positions_[sparse.set] = static_cast<uint8_t>(at);
          const Number number = folded(block[at]);
          numbers_[sparse.set++] = number;
          sparse.any = static_cast<Number>(sparse.any | number);
        }
      return sparse;
    }

   private:
    Number numbers_[kCorrectionBlock];
    uint8_t positions_[kCorrectionBlock];
  };

  template <class Number>
  class Wider {
   public:
    Wider(const Number* numbers, int64_t set) {
      for (int64_t i = 0; i < set; ++i) ++of_width_[width_of(numbers[i])];
    }

    int64_t than(int width) {
      for (; next_ > width; --next_) wider_ += of_width_[next_];
      return wider_;
    }

   private:
    static constexpr int kBits = sizeof(Number) * 8;
    uint16_t of_width_[kBits + 1] = {};
    int64_t wider_ = 0;
    int next_ = kBits;
  };

  template <class Number>
  static uint8_t* put_numbers(const Number* numbers, int64_t set, int width, uint8_t* out) {
    const uint64_t escape = (uint64_t{1} << width) - 1;
    BitWriter bits(out);
    for (int64_t i = 0; i < set; ++i) bits.put(std::min<uint64_t>(uint64_t{numbers[i]} - 1, escape), width);
    return bits.end();
  }

  template <class Number>
  static uint8_t* put_escaped(const Number* numbers, int64_t set, int width, uint8_t* out) {
    for (int64_t i = 0; i < set; ++i)
      if (width_of(numbers[i]) > width) {
        std::memcpy(out, numbers + i, sizeof(Number));
        out += sizeof(Number);
      }
    return out;
  }
};

// Of widths up to 32.
class BitReader {
 public:
  // Reads nothing from `end` on.
  BitReader(const uint8_t* in, const uint8_t* end) : in_(in), end_(end) {}

  uint64_t take(int width) {
    if (filled_ < width) fill();
    const uint64_t value = waiting_ & ((uint64_t{1} << width) - 1);
    waiting_ >>= width;
    filled_ -= width;
    return value;
  }

 private:
  void fill() {
    const auto room = static_cast<size_t>((64 - filled_) / 8);
    const size_t nbytes = std::min(room, static_cast<size_t>(end_ - in_));
    uint64_t more = 0;
    if (end_ - in_ >= 8)
      std::memcpy(&more, in_, 8);
    else
      std::memcpy(&more, in_, nbytes);
    waiting_ |= more << filled_;  // what it has no room for is read again
    filled_ += static_cast<int>(nbytes * 8);
    in_ += nbytes;
  }

  const uint8_t* in_;
  const uint8_t* end_;
  uint64_t waiting_ = 0;
  int filled_ = 0;
};

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
    guesses[i] = apply_steps(guesses[i], unfolded(number));
  }
  return in;
}

// Positions listed, or those of the bits set in a block's mask.
class Positions {
 public:
  Positions(const uint8_t* in, int64_t set, int64_t size) : list_(lists_positions(set, size) ? in : nullptr) {
    if (!list_) std::memcpy(mask_, in, static_cast<size_t>(bytes_of_bits(size)));
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
const uint8_t* apply_block(const uint8_t* in, const uint8_t* end, const BlockGuesses<Number>& guesses,
                           int64_t size) {
  const int64_t set = *in++;
  if (set == 0) return in;
  if (set == kRaw) return apply_raw(in, guesses, size);
  const int width = *in++;
  Positions positions(in, set, size);
  in += position_nbytes(set, size);
  const uint8_t* escapes = in + bytes_of_bits(set * width);
  const uint64_t escape = (uint64_t{1} << width) - 1;
  BitReader bits(in, end);
  for (int64_t i = 0; i < set; ++i) {
    const uint64_t less_one = bits.take(width);
    auto number = static_cast<Number>(less_one + 1);
    if (less_one == escape) {
      std::memcpy(&number, escapes, sizeof(Number));
      escapes += sizeof(Number);
    }
    Number& guess = guesses[positions.next()];
    guess = apply_steps(guess, unfolded(number));
  }
  return escapes;
}

}  // namespace

size_t encode_corrections(DType weight, const void* steps, const uint64_t* nonzero, int64_t count,
                          uint8_t* out) {
  if (weight == DType::F32)
    return encode_as<Scalar>(static_cast<const uint32_t*>(steps), nonzero, count, out);
  return encode_as<Scalar>(static_cast<const uint16_t*>(steps), nonzero, count, out);
}

template <class Number>
void apply_corrections(const uint8_t* coded, size_t coded_nbytes, const Guesses<Number>& guesses) {
  if (coded_nbytes == 0) return;
  const int64_t count = guesses.rows * guesses.cols;
  const uint8_t* const end = coded + coded_nbytes;
  for (int64_t at = 0; at < count; at += kCorrectionBlock) {
    const int64_t size = std::min(kCorrectionBlock, count - at);
    coded = apply_block(coded, end, BlockGuesses<Number>(guesses, at, size), size);
  }
}

template void apply_corrections(const uint8_t*, size_t, const Guesses<uint16_t>&);
template void apply_corrections(const uint8_t*, size_t, const Guesses<uint32_t>&);

}  // namespace lora_mmap
