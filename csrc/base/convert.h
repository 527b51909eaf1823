// Elements of one floating-point type as those of another: what a checkpoint at another precision was loaded
// as.
#pragma once

#include <cstdint>

#include "base/dtype.h"

namespace lora_mmap {

// `count` elements at `from` become as many at `to`; both aligned to their element, not overlapping.
using Converter = void (*)(const void* from, void* to, int64_t count);

// F16, BF16 and F32 among each other: rounded once, to nearest, ties to even. A NaN stays one, with its sign
// and the upper bits of its payload; BF16 to F32 keeps every bit, everything else makes it quiet.
bool is_convertible(DType from, DType to);

// The same bits whether `vectorised` (which takes AVX2 and F16C where this build knows them) or not. Null
// unless is_convertible. Independent of the rounding mode; traps must be masked, see FloatEnv.
Converter converter(DType from, DType to, bool vectorised);

}  // namespace lora_mmap
