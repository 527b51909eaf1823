#include "fuse/whole_rows.h"

#include <algorithm>
#include <cstring>

namespace lora_mmap {
namespace {

constexpr int64_t kColumnsPerRun = 4;  // shorter runs are no faster than single elements

size_t aligned(int64_t nbytes) {
  return static_cast<size_t>((nbytes + 63) / 64 * 64);
}

size_t runs_nbytes(const PanelBlock& shape) {
  return aligned((shape.cols / kColumnsPerRun + 1) * static_cast<int64_t>(sizeof(MapRun)));
}

template <class Bits>
void copy_runs(const MapRun* runs, int64_t n_runs, const std::byte* from, void* to) {
  Bits* out = static_cast<Bits*>(to);
  for (const MapRun* run = runs; run < runs + n_runs; ++run) {
    const std::byte* first = from + run->from * static_cast<int64_t>(sizeof(Bits));
    if (run->count > 0) {
      std::memcpy(out, first, static_cast<size_t>(run->count) * sizeof(Bits));
      out += run->count;
    } else {
      Bits value;
      std::memcpy(&value, first, sizeof(Bits));
      out = std::fill_n(out, -run->count, value);
    }
  }
}

}  // namespace

size_t WholeRows::scratch_nbytes(const PanelBlock& shape) {
  return static_cast<size_t>(shape.row_nbytes()) + runs_nbytes(shape);
}

// A row as it is, and converted.
size_t WholeRows::copy_nbytes(const PanelBlock& shape) {
  return 2 * aligned(std::max(shape.cols, shape.panel_cols()) * 8);
}

WholeRows::WholeRows(const TileOps& ops, DType order, const PanelBlock& shape, const Matrix& matrix,
                     const Block& block, std::byte* scratch, std::byte* copy)
    : ops_(ops),
      order_(order),
      shape_(shape),
      matrix_(matrix),
      block_(block),
      map_(matrix.col_map ? matrix.col_map + block.col : nullptr),
      packed_(scratch),
      runs_(reinterpret_cast<MapRun*>(scratch + shape.row_nbytes())),
      copy_(copy) {
  if (map_ && matrix.down_col_stride == 1) find_runs();
}

// Leaves n_runs_ at 0 where they are too many.
void WholeRows::find_runs() {
  const int64_t most = shape_.cols / kColumnsPerRun;
  int64_t found = 0;
  for (int64_t n = 0; n < shape_.cols;) {
    if (found == most) return;
    int64_t end = n + 1;
    const bool repeats = end < shape_.cols && map_[end] == map_[n];
    const int32_t step = repeats ? 0 : 1;
    while (end < shape_.cols && map_[end] == map_[end - 1] + step) ++end;
    const auto count = static_cast<int32_t>(end - n);
    runs_[found++] = {map_[n], repeats ? -count : count};
    n = end;
  }
  n_runs_ = found;
}

const std::byte* WholeRows::element(int64_t row, int64_t col) const {
  return element_at(matrix_.down, matrix_.down_dtype,
                    row * matrix_.down_row_stride + col * matrix_.down_col_stride);
}

// The row of the matrix that serves row m of the block.
int64_t WholeRows::row_for(int64_t m) const {
  if (matrix_.down_row_stride == 0) return 0;
  return matrix_.row_map ? matrix_.row_map[block_.row + m] : block_.row + m;
}

// A map may lead anywhere, but then the matrix is often small and stays in the cache.
void WholeRows::prefetch_after(int64_t m) const {
  if (map_ || matrix_.down_col_stride != 1 || m + 1 >= block_.rows) return;
  prefetch_row(element(row_for(m + 1), block_.col), shape_.cols * (dtype_bits(matrix_.down_dtype) / 8));
}

PanelRow WholeRows::row(int64_t m) {
  const int64_t row = row_for(m);
  const bool one_value = matrix_.down_col_stride == 0;
  if (row != last_) {
    last_ = row;
    prefetch_after(m);
    if (one_value) return repeated(element(row, 0));
    const std::byte* data = element(row, map_ ? 0 : block_.col);
    const FactorRow source =
        packable_row(order_, contiguous({matrix_.down_dtype, data, matrix_.down_col_stride, map_}),
                     shape_.cols, copy_ + copy_nbytes(shape_) / 2);
    ops_.pack_down(order_, source.dtype, source.data, shape_.cols, packed_, shape_.panel_nbytes);
  }
  return {packed_, one_value ? 0 : shape_.panel_nbytes};
}

// A panel of one value.
PanelRow WholeRows::repeated(const std::byte* value) {
  const int64_t count = shape_.panel_cols();
  const FactorRow source = packable_row(order_, {matrix_.down_dtype, value, 0}, count, copy_);
  ops_.pack_down(order_, source.dtype, source.data, count, packed_, shape_.panel_nbytes);
  return {packed_, 0};
}

FactorRow WholeRows::contiguous(const FactorRow& row) {
  if (!n_runs_) return row;
  const auto* from = static_cast<const std::byte*>(row.data);
  switch (dtype_bits(row.dtype)) {
    case 8:
      copy_runs<uint8_t>(runs_, n_runs_, from, copy_);
      break;
    case 16:
      copy_runs<uint16_t>(runs_, n_runs_, from, copy_);
      break;
    case 32:
      copy_runs<uint32_t>(runs_, n_runs_, from, copy_);
      break;
    default:
      copy_runs<uint64_t>(runs_, n_runs_, from, copy_);
  }
  return {row.dtype, copy_};
}

}  // namespace lora_mmap
