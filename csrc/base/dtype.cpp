#include "base/dtype.h"

#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/half.h"

namespace lora_mmap {
namespace {

struct Entry {
  std::string_view name;
  unsigned bits;
};

constexpr std::array<Entry, 22> kTypes{{
    {"BOOL", 8},        {"U8", 8},   {"I8", 8},      {"U16", 16},    {"I16", 16},    {"U32", 32},
    {"I32", 32},        {"U64", 64}, {"I64", 64},    {"F16", 16},    {"BF16", 16},   {"F32", 32},
    {"F64", 64},        {"C64", 64}, {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"F4", 4},   {"F6_E2M3", 6}, {"F6_E3M2", 6},
}};

template <class T>
T load(const void* data, uint64_t index) {
  T value;
  std::memcpy(&value, static_cast<const char*>(data) + index * sizeof(T), sizeof(T));
  return value;
}

// An 8-bit float of `mantissa_bits`, its special values told by `fnuz` (one NaN at 0x80, no inf, no -0) or by
// the OCP rules (E4M3: only S.1111.111 is NaN; E5M2: IEEE inf and NaN).
double f8_to_double(uint8_t bits, int mantissa_bits, int bias, bool fnuz) {
  const int exponent_bits = 7 - mantissa_bits;
  const double sign = (bits & 0x80) ? -1.0 : 1.0;
  const int exponent = (bits & 0x7F) >> mantissa_bits;
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const int top = (1 << exponent_bits) - 1;
  if (fnuz) {
    if (bits == 0x80) return std::numeric_limits<double>::quiet_NaN();
  } else if (exponent_bits == 5 && exponent == top) {
    return mantissa ? std::numeric_limits<double>::quiet_NaN()
                    : sign * std::numeric_limits<double>::infinity();
  } else if (exponent_bits == 4 && exponent == top && mantissa == 7) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  const int implicit = exponent ? (1 << mantissa_bits) : 0;
  return sign * std::ldexp(mantissa + implicit, (exponent ? exponent : 1) - bias - mantissa_bits);
}

}  // namespace

std::optional<DType> dtype_from_name(std::string_view name) {
  for (size_t i = 0; i < kTypes.size(); ++i)
    if (kTypes[i].name == name) return static_cast<DType>(i);
  return std::nullopt;
}

std::string_view dtype_name(DType dtype) {
  return kTypes[static_cast<size_t>(dtype)].name;
}

unsigned dtype_bits(DType dtype) {
  return kTypes[static_cast<size_t>(dtype)].bits;
}

bool is_factor_dtype(DType dtype) {
  switch (dtype) {
    case DType::F16:
    case DType::BF16:
    case DType::F32:
    case DType::F64:
    case DType::F8_E4M3:
    case DType::F8_E5M2:
    case DType::F8_E4M3FNUZ:
    case DType::F8_E5M2FNUZ:
      return true;
    default:
      return false;
  }
}

double element_to_double(DType dtype, const void* data, uint64_t index) {
  switch (dtype) {
    case DType::BOOL:
      return load<uint8_t>(data, index) ? 1.0 : 0.0;
    case DType::U8:
      return load<uint8_t>(data, index);
    case DType::I8:
      return load<int8_t>(data, index);
    case DType::U16:
      return load<uint16_t>(data, index);
    case DType::I16:
      return load<int16_t>(data, index);
    case DType::U32:
      return load<uint32_t>(data, index);
    case DType::I32:
      return load<int32_t>(data, index);
    case DType::U64:
      return static_cast<double>(load<uint64_t>(data, index));
    case DType::I64:
      return static_cast<double>(load<int64_t>(data, index));
    case DType::F16:
      return f16_to_float(load<uint16_t>(data, index));
    case DType::BF16:
      return bf16_to_float(load<uint16_t>(data, index));
    case DType::F32:
      return load<float>(data, index);
    case DType::F64:
      return load<double>(data, index);
    case DType::F8_E4M3:
      return f8_to_double(load<uint8_t>(data, index), 3, 7, false);
    case DType::F8_E5M2:
      return f8_to_double(load<uint8_t>(data, index), 2, 15, false);
    case DType::F8_E4M3FNUZ:
      return f8_to_double(load<uint8_t>(data, index), 3, 8, true);
    case DType::F8_E5M2FNUZ:
      return f8_to_double(load<uint8_t>(data, index), 2, 16, true);
    case DType::F8_E8M0: {
      const int exponent = load<uint8_t>(data, index);
      return exponent == 255 ? std::numeric_limits<double>::quiet_NaN() : std::ldexp(1.0, exponent - 127);
    }
    case DType::C64:
    case DType::F4:
    case DType::F6_E2M3:
    case DType::F6_E3M2:
      break;
  }
  return std::numeric_limits<double>::quiet_NaN();
}

void elements_to_float(DType dtype, const void* data, uint64_t count, float* out) {
  if (dtype == DType::F32) {
    std::memcpy(out, data, count * sizeof(float));
    return;
  }
  for (uint64_t i = 0; i < count; ++i) out[i] = static_cast<float>(element_to_double(dtype, data, i));
}

}  // namespace lora_mmap
