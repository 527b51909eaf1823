// Element types, in safetensors' spelling and numbering of our own.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace lora_mmap {

enum class DType : uint8_t {
  BOOL,
  U8,
  I8,
  U16,
  I16,
  U32,
  I32,
  U64,
  I64,
  F16,
  BF16,
  F32,
  F64,
  C64,
  F8_E4M3,
  F8_E5M2,
  F8_E8M0,
  F8_E4M3FNUZ,
  F8_E5M2FNUZ,
  F4,
  F6_E2M3,
  F6_E3M2,
};

std::optional<DType> dtype_from_name(std::string_view name);
std::string_view dtype_name(DType dtype);
unsigned dtype_bits(DType dtype);

// True for the types an adapter factor may have: one real number of 8 bits or more per element.
bool is_factor_dtype(DType dtype);

// Element `index` of `data` (any alignment) as a double, exactly (integers beyond 2^53 round). Not for C64,
// F4, F6.
double element_to_double(DType dtype, const void* data, uint64_t index);

// `count` elements from `data` (any alignment), each rounded once to fp32. Factor dtypes only.
void elements_to_float(DType dtype, const void* data, uint64_t count, float* out);

}  // namespace lora_mmap
