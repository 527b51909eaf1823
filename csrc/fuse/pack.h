// What packing is on every instruction set: which source goes where. In an unnamed namespace: see tile.h.
//
// An Isa has: F16, BF16 and F32, its sources; kWideCols, the doubles of a panel; down<Source> and up<Source>,
// which TileOps' pack_down and pack_up are made of.
#pragma once

#include <cstdint>
#include <cstring>

#include "base/dtype.h"
#include "fuse/up_rows.h"

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

// use(row, out) for each row and where it goes.
template <class Use>
void for_each_up_row(const UpRows& rows, void* out, int64_t out_stride_nbytes, Use use) {
  const char* from = static_cast<const char*>(rows.data);
  char* to = static_cast<char*>(out);
  for (int64_t m = 0; m < rows.rows; ++m, from += rows.stride_nbytes, to += out_stride_nbytes) use(from, to);
}

void pack_up_f64(const UpRows& rows, double scale, void* out, int64_t out_stride_nbytes) {
  for_each_up_row(rows, out, out_stride_nbytes, [&](const char* from, char* to) {
    for (int64_t i = 0; i < rows.count; ++i) {
      double value;
      std::memcpy(&value, from + i * 8, 8);
      value *= scale;
      std::memcpy(to + i * 8, &value, 8);
    }
  });
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

template <class Isa, class Source>
void pack_up_rows(const UpRows& rows, float scale, void* out, int64_t out_stride_nbytes) {
  for_each_up_row(rows, out, out_stride_nbytes, [&](const char* from, char* to) {
    Isa::template up<Source>(from, rows.count, scale, reinterpret_cast<float*>(to));
  });
}

template <class Isa>
void pack_up(DType weight, DType source_dtype, const UpRows& rows, double scale, void* out,
             int64_t out_stride_nbytes) {
  if (weight == DType::F64) return pack_up_f64(rows, scale, out, out_stride_nbytes);
  const float s = static_cast<float>(scale);
  if (source_dtype == DType::F16)
    return pack_up_rows<Isa, typename Isa::F16>(rows, s, out, out_stride_nbytes);
  if (source_dtype == DType::BF16)
    return pack_up_rows<Isa, typename Isa::BF16>(rows, s, out, out_stride_nbytes);
  return pack_up_rows<Isa, typename Isa::F32>(rows, s, out, out_stride_nbytes);
}

}  // namespace
}  // namespace lora_mmap
