// The two axes of a rectangle, as it is walked: 16 rows n at a time, runs of columns k along memory.
#pragma once

#include "branch/factor_write.h"

namespace lora_mmap {

struct Axis {
  Extent extent;   // what is written, of the branch
  int64_t origin;  // where the factor's index 0 lies
  const int32_t* map;
  int64_t stride;  // of the factor
  int64_t pitch;   // of the branch

  // The factor's index for `at`, -1 for one that is left as it is.
  int64_t source(int64_t at) const { return map ? map[at - origin] : at - origin; }
  bool leaves(int64_t at) const { return map && map[at - origin] < 0; }
};

struct Axes {
  Axis n;
  Axis k;
};

// Those of the features `features` of `write`. Of a plain branch, k is the axis with the shorter steps.
Axes axes_of(const FactorWrite& write, const Extent& features);

}  // namespace lora_mmap
