#include "branch/panel.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "fuse/factor.h"

namespace lora_mmap {
namespace {

alignas(64) constexpr std::byte kZeros[kPanelCols * sizeof(float)] = {};

bool is_scalable(DType dtype) {
  return dtype == DType::F16 || dtype == DType::BF16 || dtype == DType::F32;
}

// In every byte of an element: what this makes is no number, so it counts as no overflow.
int nan_byte(DType dtype) {
  return dtype == DType::F8_E4M3FNUZ || dtype == DType::F8_E5M2FNUZ ? 0x80 : 0xFF;
}

template <class Bits>
void gather_strided(const std::byte* row, int64_t first, int64_t stride, int64_t count, std::byte* out) {
  constexpr auto kSize = static_cast<int64_t>(sizeof(Bits));
  for (int64_t i = 0; i < count; ++i)
    std::memcpy(out + i * kSize, row + (first + i) * stride * kSize, sizeof(Bits));
}

template <class Bits>
void gather_mapped(const std::byte* row, const int32_t* map, int64_t stride, int64_t count, std::byte* out,
                   int none) {
  constexpr auto kSize = static_cast<int64_t>(sizeof(Bits));
  for (int64_t i = 0; i < count; ++i, out += kSize) {
    if (map[i] < 0)
      std::memset(out, none, sizeof(Bits));
    else
      std::memcpy(out, row + map[i] * stride * kSize, sizeof(Bits));
  }
}

// Columns `columns` of a row whose element 0 is at `row`; `none` in every byte of those that are left alone.
template <class Bits>
void gather(const std::byte* row, const Axis& axis, const Extent& columns, std::byte* out, int none) {
  const int64_t first = columns.begin - axis.origin;
  if (axis.map)
    gather_mapped<Bits>(row, axis.map + first, axis.stride, columns.size(), out, none);
  else
    gather_strided<Bits>(row, first, axis.stride, columns.size(), out);
}

}  // namespace

PanelReader::PanelReader(const FactorWrite& write, const Axes& axes, const BranchOps& ops)
    : write_(write),
      axes_(axes),
      factor_nbytes_(dtype_bits(write.factor_dtype) / 8),
      branch_nbytes_(dtype_bits(write.dtype) / 8),
      scale_(static_cast<float>(write.scale)),
      copies_(write.factor_dtype == write.dtype && scale_ == 1),
      in_a_row_(axes.k.stride == 1 && !axes.k.map),
      regular_(in_a_row_ && !axes.n.map && !write.zeros),
      widens_(!is_scalable(write.factor_dtype)),
      scaled_row_(ops.scaled_row(widens_ ? DType::F32 : write.factor_dtype, write.dtype)) {}

// The columns' map is not looked at.
const std::byte* PanelReader::element(int64_t n, int64_t k) const {
  const int64_t index = axes_.n.source(n) * axes_.n.stride + (k - axes_.k.origin) * axes_.k.stride;
  return static_cast<const std::byte*>(write_.factor) + index * factor_nbytes_;
}

// What the next panel has instead of this row; empty if nothing is known of it. Not the fetch itself: GCC
// drops calls of a function that does nothing else.
PanelReader::Bytes PanelReader::after(int64_t row) const {
  const auto& [n, k] = axes_;
  int64_t col = panel_.k.end;
  if (col == k.extent.end) {
    row += kTile;
    col = k.extent.begin;
  }
  if (row >= n.extent.end || n.leaves(row)) return {nullptr, 0};
  return {element(row, col), std::min(k.extent.end - col, kPanelCols) * factor_nbytes_};
}

const Panel& PanelReader::read(const Extent& n, const Extent& k) {
  panel_.n = n;
  panel_.k = k;
  panel_.has_all_rows = n.size() == kTile;
  if (regular_) {
    read_regular_rows();
    return panel_;
  }
  for (int64_t at = n.begin; at < n.end; ++at) {
    const std::byte* row = axes_.n.leaves(at) ? nullptr : write_.zeros ? kZeros : read_row(at);
    panel_.rows[within_tile(at)] = row;
    panel_.has_all_rows &= row != nullptr;
  }
  return panel_;
}

// Rows that follow each other in memory take one conversion, and no prefetch: the hardware sees them.
void PanelReader::read_regular_rows() {
  const Extent& n = panel_.n;
  const int64_t cols = panel_.k.size();
  const bool follow = axes_.n.stride == cols;
  const std::byte* from = element(n.begin, panel_.k.begin);
  const int64_t step = axes_.n.stride * factor_nbytes_;
  if (follow && !copies_) convert(from, n.size() * cols, values_);
  for (int64_t i = 0; i < n.size(); ++i, from += step) {
    std::byte* values = values_ + i * cols * branch_nbytes_;
    if (!follow) {
      const auto [next, nbytes] = after(n.begin + i);
      prefetch_row(next, nbytes);
      if (!copies_) convert(from, cols, values);
    }
    panel_.rows[within_tile(n.begin) + i] = copies_ ? from : values;
  }
}

const std::byte* PanelReader::read_row(int64_t at) {
  const std::byte* from;
  if (in_a_row_) {
    const auto [next, nbytes] = after(at);
    prefetch_row(next, nbytes);
    from = element(at, panel_.k.begin);
    if (copies_) return from;
  } else {
    from = gathered(element(at, axes_.k.origin));
  }
  std::byte* values = values_ + within_tile(at) * kPanelCols * branch_nbytes_;
  convert(from, panel_.k.size(), values);
  return values;
}

// The panel's columns of a row whose element 0 is at `row`.
const std::byte* PanelReader::gathered(const std::byte* row) {
  const int none = nan_byte(write_.factor_dtype);
  switch (factor_nbytes_) {
    case 1:
      gather<uint8_t>(row, axes_.k, panel_.k, gathered_, none);
      break;
    case 2:
      gather<uint16_t>(row, axes_.k, panel_.k, gathered_, none);
      break;
    case 4:
      gather<uint32_t>(row, axes_.k, panel_.k, gathered_, none);
      break;
    default:
      gather<uint64_t>(row, axes_.k, panel_.k, gathered_, none);
  }
  return gathered_;
}

void PanelReader::convert(const std::byte* from, int64_t count, std::byte* to) {
  if (copies_) {
    std::memcpy(to, from, static_cast<size_t>(count * branch_nbytes_));
    return;
  }
  while (count > 0) {
    const int64_t part = widens_ ? std::min(count, kPanelCols) : count;
    if (widens_) read_factor_row({write_.factor_dtype, from}, part, widened_);
    const void* values = widens_ ? static_cast<const void*>(widened_) : from;
    if (scaled_row_(values, to, part, scale_)) overflowed_ += count_overflowed(from, to, part);
    from += part * factor_nbytes_;
    to += part * branch_nbytes_;
    count -= part;
  }
}

int64_t PanelReader::count_overflowed(const std::byte* from, const std::byte* to, int64_t count) const {
  int64_t found = 0;
  for (uint64_t i = 0; i < static_cast<uint64_t>(count); ++i)
    found += std::isfinite(element_to_double(write_.factor_dtype, from, i)) &&
             !std::isfinite(element_to_double(write_.dtype, to, i));
  return found;
}

}  // namespace lora_mmap
