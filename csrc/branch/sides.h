// The two sides of a rectangle, as it is walked: 16 rows n at a time, runs of columns k along memory.
#pragma once

#include "branch/factor_write.h"

namespace lora_mmap {

struct Side {
  Range range;     // what is written, of the branch
  int64_t origin;  // where the factor's index 0 lies
  const int32_t* map;
  int64_t stride;  // of the factor
  int64_t pitch;   // of the branch

  // The factor's index for `at`, -1 for one that is left as it is.
  int64_t source(int64_t at) const { return map ? map[at - origin] : at - origin; }
  bool leaves(int64_t at) const { return map && map[at - origin] < 0; }
};

struct Sides {
  Side n;
  Side k;
};

// Those of the features `features` of `write`. Of a plain branch, k is the side with the shorter steps.
Sides sides_of(const FactorWrite& write, const Range& features);

}  // namespace lora_mmap
