#include "fuse/direct_fusion.h"

#include <algorithm>

#include "fuse/factor.h"

namespace lora_mmap {
namespace {

constexpr int64_t kColumnStep = 64;          // whole cache lines of a 16-bit weight
constexpr int64_t kBlockElements = 1 << 16;  // tens of microseconds: cheap to hand out, even at the end

int64_t parts(int64_t size, int64_t step) {
  return (size + step - 1) / step;
}

// The matrix's values for the block's columns of row m of the job.
const std::byte* values_of(const Matrix& matrix, int64_t m, int64_t col) {
  const int64_t row = matrix.row_map && matrix.down_row_stride != 0 ? matrix.row_map[m] : m;
  return element_at(matrix.down, matrix.down_dtype,
                    row * matrix.down_row_stride + col * matrix.down_col_stride);
}

template <class T>
bool fuse_block(const ElementOps& elements, const Job& job, const Block& block) {
  const Term& term = job.terms[0];
  const Matrix& matrix = term.matrix;
  T value;
  DirectRow row{.base = nullptr,
                .weight = nullptr,
                .cols = block.cols,
                .values = &value,
                .values_dtype = matrix.down_dtype,
                .repeats = matrix.down_col_stride == 0,
                .times_base = term.times_base,
                .scale = term.scale};
  bool overflow = false;
  for (int64_t m = block.row; m < block.row + block.rows; ++m) {
    const std::byte* values = values_of(matrix, m, block.col);
    if (row.repeats)
      read_factor_row<T>({matrix.down_dtype, values}, 1, &value);
    else
      row.values = values;
    row.base = element_at(job.base, job.dtype, m * job.base_row_stride + block.col);
    row.weight =
        const_cast<std::byte*>(element_at(job.weight, job.dtype, m * job.weight_row_stride + block.col));
    overflow |= elements.fuse_row(job.dtype, row);
  }
  return overflow;
}

}  // namespace

bool is_direct(const Job& job) {
  if (job.terms.size() != 1 || job.weight_col_stride != 1 || job.base_col_stride != 1) return false;
  const Term& term = job.terms[0];
  const Matrix& matrix = term.matrix;
  if (!matrix.is_whole() || matrix.col_map || term.times || term.gain) return false;
  return matrix.down_col_stride == 0 ||
         (matrix.down_col_stride == 1 && is_packable(job.dtype, matrix.down_dtype));
}

Tiling direct_tiling(const Job& job) {
  const int64_t sections = parts(job.cols, kBlockElements);
  const int64_t step = parts(parts(job.cols, sections), kColumnStep) * kColumnStep;
  const int64_t cols = std::min(step, job.cols);
  return {std::clamp<int64_t>(kBlockElements / cols, 1, job.rows), cols, 0};
}

bool fuse_directly(const ElementOps& elements, const Job& job, const Block& block) {
  return job.dtype == DType::F64 ? fuse_block<double>(elements, job, block)
                                 : fuse_block<float>(elements, job, block);
}

}  // namespace lora_mmap
