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
void gather(const std::byte* row, const Axis& axis, const Extent& extent, int none, std::byte* out) {
  constexpr auto kSize = static_cast<int64_t>(sizeof(Bits));
  for (int64_t at = extent.begin; at < extent.end; ++at, out += kSize) {
    const int64_t from = axis.source(at);
    if (from < 0)
      std::memset(out, none, sizeof(Bits));
    else
      std::memcpy(out, row + from * axis.stride * kSize, sizeof(Bits));
  }
}

}  // namespace

bool Panel::has_all_rows() const {
  return n.size() == kTile && std::find(rows, rows + kTile, nullptr) == rows + kTile;
}

PanelReader::PanelReader(const FactorWrite& write, const Axes& axes, const BranchOps& ops)
    : write_(write),
      axes_(axes),
      scale_(static_cast<float>(write.scale)),
      copies_(write.factor_dtype == write.dtype && scale_ == 1),
      widened_(!is_scalable(write.factor_dtype)),
      scaled_row_(ops.scaled_row(widened_ ? DType::F32 : write.factor_dtype, write.dtype)) {}

const Panel& PanelReader::read(const Extent& n, const Extent& k) {
  panel_.n = n;
  panel_.k = k;
  if (!read_rows_at_once())
    for (int64_t at = n.begin; at < n.end; ++at) read_row(at);
  return panel_;
}

void PanelReader::read_row(int64_t at) {
  const std::byte*& row = panel_.rows[at % kTile];
  if (axes_.n.leaves(at)) {
    row = nullptr;
  } else if (write_.zeros) {
    row = kZeros;
  } else if (copies_ && axes_.k.stride == 1 && !axes_.k.map) {
    row = element(at, panel_.k.begin);
  } else {
    const int64_t row_nbytes = kPanelCols * (dtype_bits(write_.dtype) / 8);
    std::byte* values = values_ + at % kTile * row_nbytes;
    const bool direct = axes_.k.stride == 1 && !axes_.k.map;
    const std::byte* from = direct ? element(at, panel_.k.begin) : contiguous(element(at, axes_.k.origin));
    convert(from, panel_.k.size(), values);
    row = values;
  }
}

// Rows that follow each other in memory take one conversion. False where they do not.
bool PanelReader::read_rows_at_once() {
  const auto& [n, k] = axes_;
  const int64_t cols = panel_.k.size();
  if (write_.zeros || copies_ || n.map || k.map || k.stride != 1 || n.stride != cols) return false;
  convert(element(panel_.n.begin, panel_.k.begin), panel_.n.size() * cols, values_);
  for (int64_t i = 0; i < panel_.n.size(); ++i)
    panel_.rows[(panel_.n.begin + i) % kTile] = values_ + i * cols * (dtype_bits(write_.dtype) / 8);
  return true;
}

// The columns' map is not looked at.
const std::byte* PanelReader::element(int64_t n, int64_t k) const {
  return element_at(write_.factor, write_.factor_dtype,
                    axes_.n.source(n) * axes_.n.stride + (k - axes_.k.origin) * axes_.k.stride);
}

// The panel's columns of a row whose element 0 is at `row`.
const std::byte* PanelReader::contiguous(const std::byte* row) {
  const int none = nan_byte(write_.factor_dtype);
  switch (dtype_bits(write_.factor_dtype)) {
    case 8:
      gather<uint8_t>(row, axes_.k, panel_.k, none, gathered_);
      break;
    case 16:
      gather<uint16_t>(row, axes_.k, panel_.k, none, gathered_);
      break;
    case 32:
      gather<uint32_t>(row, axes_.k, panel_.k, none, gathered_);
      break;
    default:
      gather<uint64_t>(row, axes_.k, panel_.k, none, gathered_);
  }
  return gathered_;
}

void PanelReader::convert(const std::byte* from, int64_t count, std::byte* to) {
  const int64_t from_nbytes = dtype_bits(write_.factor_dtype) / 8;
  const int64_t to_nbytes = dtype_bits(write_.dtype) / 8;
  if (copies_) {
    std::memcpy(to, from, static_cast<size_t>(count * to_nbytes));
    return;
  }
  while (count > 0) {
    const int64_t part = widened_ ? std::min(count, kPanelCols) : count;
    if (widened_) read_factor_row({write_.factor_dtype, from}, part, widened_row_);
    const void* values = widened_ ? static_cast<const void*>(widened_row_) : from;
    if (scaled_row_(values, to, part, scale_)) overflowed_ += count_overflowed(from, to, part);
    from += part * from_nbytes;
    to += part * to_nbytes;
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
