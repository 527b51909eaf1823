#include "fuse/factor.h"

#include <array>
#include <cstring>

#include "base/half.h"

namespace lora_mmap {
namespace {

template <class Bits, class T, class Convert>
void read_as(const FactorRow& row, int64_t count, T* out, Convert convert) {
  const char* bytes = static_cast<const char*>(row.data);
  const int64_t step = row.col_stride * static_cast<int64_t>(sizeof(Bits));
  for (int64_t i = 0; i < count; ++i) {
    Bits bits;
    std::memcpy(&bits, bytes + (row.map ? row.map[i] : i) * step, sizeof(Bits));
    out[i] = static_cast<T>(convert(bits));
  }
}

// Every value of an 8-bit float fits fp32 exactly.
using ByteTable = std::array<float, 256>;

ByteTable make_table(DType dtype) {
  ByteTable table;
  for (unsigned i = 0; i < 256; ++i) {
    const uint8_t bits = static_cast<uint8_t>(i);
    table[i] = static_cast<float>(element_to_double(dtype, &bits, 0));
  }
  return table;
}

const ByteTable& table_of(DType dtype) {
  static const ByteTable e4m3 = make_table(DType::F8_E4M3);
  static const ByteTable e5m2 = make_table(DType::F8_E5M2);
  static const ByteTable e4m3fnuz = make_table(DType::F8_E4M3FNUZ);
  static const ByteTable e5m2fnuz = make_table(DType::F8_E5M2FNUZ);
  switch (dtype) {
    case DType::F8_E5M2:
      return e5m2;
    case DType::F8_E4M3FNUZ:
      return e4m3fnuz;
    case DType::F8_E5M2FNUZ:
      return e5m2fnuz;
    default:
      return e4m3;
  }
}

template <class Bits>
void gather_as(const FactorRow& row, int64_t count, void* out) {
  read_as<Bits>(row, count, static_cast<Bits*>(out), [](Bits bits) { return bits; });
}

}  // namespace

template <class T>
void read_factor_row(const FactorRow& row, int64_t count, T* out) {
  switch (row.dtype) {
    case DType::F16:
      return read_as<uint16_t>(row, count, out, f16_to_float);
    case DType::BF16:
      return read_as<uint16_t>(row, count, out, bf16_to_float);
    case DType::F32:
      return read_as<float>(row, count, out, [](float value) { return value; });
    case DType::F64:
      return read_as<double>(row, count, out, [](double value) { return value; });
    default: {
      const ByteTable& table = table_of(row.dtype);
      return read_as<uint8_t>(row, count, out, [&](uint8_t bits) { return table[bits]; });
    }
  }
}

template void read_factor_row(const FactorRow&, int64_t, float*);
template void read_factor_row(const FactorRow&, int64_t, double*);

void gather_factor_row(const FactorRow& row, int64_t count, void* out) {
  switch (dtype_bits(row.dtype)) {
    case 8:
      return gather_as<uint8_t>(row, count, out);
    case 16:
      return gather_as<uint16_t>(row, count, out);
    case 32:
      return gather_as<uint32_t>(row, count, out);
    default:
      return gather_as<uint64_t>(row, count, out);
  }
}

bool is_packable(DType weight, DType dtype) {
  if (weight == DType::F64) return dtype == DType::F64;
  return dtype == DType::F16 || dtype == DType::BF16 || dtype == DType::F32;
}

FactorRow packable_row(DType weight, const FactorRow& row, int64_t count, void* copy) {
  const bool direct = is_packable(weight, row.dtype);
  if (direct && row.is_contiguous()) return row;
  if (direct) {
    gather_factor_row(row, count, copy);
    return {row.dtype, copy};
  }
  if (weight == DType::F64) {
    read_factor_row(row, count, static_cast<double*>(copy));
    return {DType::F64, copy};
  }
  read_factor_row(row, count, static_cast<float*>(copy));
  return {DType::F32, copy};
}

}  // namespace lora_mmap
