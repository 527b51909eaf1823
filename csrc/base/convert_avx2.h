// The converters for AVX2 + F16C.
#pragma once

#include "base/convert.h"

namespace lora_mmap {

// `from` and `to` as is_convertible has them. Null in a build for another architecture. The caller checks
// that the CPU has the instructions.
Converter avx2_converter(DType from, DType to);

}  // namespace lora_mmap
