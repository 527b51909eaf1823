// Rows of LoRA factors, read from bytes of any alignment.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"

namespace lora_mmap {

// Address of element `index` of `factor`.
inline const std::byte* element_at(const void* factor, DType dtype, int64_t index) {
  return static_cast<const std::byte*>(factor) + index * (dtype_bits(dtype) / 8);
}

// `count` elements of the row at `row`, each rounded once to T (float or double). With a map, out[i] is
// element map[i] of the row.
template <class T>
void read_factor_row(DType dtype, const void* row, const int32_t* map, int64_t count, T* out);

// The same selection without conversion: `count` elements of `dtype` into `out`.
void gather_factor_row(DType dtype, const void* row, const int32_t* map, int64_t count, void* out);

}  // namespace lora_mmap
