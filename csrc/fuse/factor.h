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

// Fetches a row that is read soon: where rows are far apart the hardware sees each begin too late.
inline void prefetch_row(const std::byte* row, int64_t nbytes) {
  for (int64_t i = 0; i < nbytes; i += 64) __builtin_prefetch(row + i);
}

// A row of a factor: element i lies i * col_stride elements (map[i] * col_stride with a map) from `data`.
struct FactorRow {
  DType dtype;
  const void* data;
  int64_t col_stride = 1;
  const int32_t* map = nullptr;

  bool is_contiguous() const { return col_stride == 1 && !map; }
};

// The first `count` elements of the row, each rounded once to T (float or double).
template <class T>
void read_factor_row(const FactorRow& row, int64_t count, T* out);

// The same selection without conversion: `count` elements of the row's type into `out`.
void gather_factor_row(const FactorRow& row, int64_t count, void* out);

// Whether TileOps read elements of `dtype` for weights of type `weight`.
bool is_packable(DType weight, DType dtype);

// The row as it stands where TileOps can read it, or a contiguous copy that they can, in `copy` (8 bytes for
// each element).
FactorRow packable_row(DType weight, const FactorRow& row, int64_t count, void* copy);

}  // namespace lora_mmap
