// Corrections of a tile made element by element.
#pragma once

#include <algorithm>
#include <cstdint>

#include "undo/corrections.h"
#include "undo/ordered_bits.h"
#include "undo/tile_kernel.h"

namespace lora_mmap {

template <class Bits>
class Numbering {
 public:
  Numbering(const Corrections& corrections, int64_t count)
      : numbers_(static_cast<Bits*>(corrections.numbers)), nonzero_(corrections.nonzero) {
    std::fill_n(nonzero_, (count + kCorrectionBlock - 1) / kCorrectionBlock * (kCorrectionBlock / 64), 0);
  }

  void add(int64_t i, Bits guess, Bits pristine) {
    numbers_[i] = steps_between(guess, pristine);
    nonzero_[i / 64] |= uint64_t{numbers_[i] != 0} << (i % 64);
  }

 private:
  Bits* numbers_;
  uint64_t* nonzero_;
};

}  // namespace lora_mmap
