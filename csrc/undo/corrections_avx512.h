// encode_corrections() with AVX-512 and BMI2; defined where the compiler was given both.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"

namespace lora_mmap {

size_t encode_corrections_avx512(DType weight, const void* steps, const uint64_t* nonzero, int64_t count,
                                 uint8_t* out);

}  // namespace lora_mmap
