// Corrections of a tile made element by element.
#pragma once

#include <algorithm>
#include <cstdint>

#include "undo/bit_steps.h"
#include "undo/corrections.h"
#include "undo/tile_kernel.h"

namespace lora_mmap {

template <class Bits>
class Numbering {
 public:
  Numbering(const Corrections& corrections, int64_t count)
      : steps_(static_cast<Bits*>(corrections.steps)), nonzero_(corrections.nonzero) {
    std::fill_n(nonzero_, (count + kCorrectionBlock - 1) / kCorrectionBlock * (kCorrectionBlock / 64), 0);
  }

  void add(int64_t i, Bits guess, Bits pristine) {
    steps_[i] = steps_between(guess, pristine);
    nonzero_[i / 64] |= uint64_t{steps_[i] != 0} << (i % 64);
  }

 private:
  Bits* steps_;
  uint64_t* nonzero_;
};

}  // namespace lora_mmap
