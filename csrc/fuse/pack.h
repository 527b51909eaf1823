// What packing is on every instruction set: which source goes where. In an unnamed namespace: see tile.h.
//
// An Isa has: F16, BF16 and F32, its sources; kWideCols, the doubles of a panel; down<Source> and up<Source>,
// which TileOps' pack_down and pack_up are made of.
#pragma once

#include <cstdint>
#include <cstring>

#include "base/dtype.h"

namespace lora_mmap {
namespace {

template <int Cols>
void pack_down_f64(const void* source, int64_t count, char* panels, int64_t panel_stride) {
  const char* from = static_cast<const char*>(source);
  for (int64_t i = 0; i < count; i += Cols) {
    double values[Cols] = {};
    std::memcpy(values, from + i * 8, static_cast<size_t>(count - i < Cols ? count - i : Cols) * 8);
    std::memcpy(panels + i / Cols * panel_stride, values, sizeof(values));
  }
}

void pack_up_f64(const void* source, int64_t count, double scale, double* out) {
  const char* from = static_cast<const char*>(source);
  for (int64_t i = 0; i < count; ++i) {
    double value;
    std::memcpy(&value, from + i * 8, 8);
    out[i] = value * scale;
  }
}

template <class Isa>
void pack_down(DType weight, DType source_dtype, const void* source, int64_t count, void* panels,
               int64_t panel_stride) {
  char* to = static_cast<char*>(panels);
  const bool split = weight == DType::BF16;
  if (weight == DType::F64) return pack_down_f64<Isa::kWideCols>(source, count, to, panel_stride);
  if (source_dtype == DType::F16)
    return Isa::template down<typename Isa::F16>(split, source, count, to, panel_stride);
  if (source_dtype == DType::BF16)
    return Isa::template down<typename Isa::BF16>(split, source, count, to, panel_stride);
  return Isa::template down<typename Isa::F32>(split, source, count, to, panel_stride);
}

template <class Isa>
void pack_up(DType weight, DType source_dtype, const void* source, int64_t count, double scale, void* out) {
  if (weight == DType::F64) return pack_up_f64(source, count, scale, static_cast<double*>(out));
  const float s = static_cast<float>(scale);
  float* to = static_cast<float*>(out);
  if (source_dtype == DType::F16) return Isa::template up<typename Isa::F16>(source, count, s, to);
  if (source_dtype == DType::BF16) return Isa::template up<typename Isa::BF16>(source, count, s, to);
  return Isa::template up<typename Isa::F32>(source, count, s, to);
}

}  // namespace
}  // namespace lora_mmap
