#include "cuda/term_rows.h"

#include <string>

#include "cuda/table_rows.h"
#include "fuse/job_check.h"

namespace lora_mmap::cuda {
namespace {

MatrixRow matrix_row(const Matrix& matrix, size_t job) {
  if (matrix.rank > kMostElements) refuse_job(job, "rank is " + std::to_string(matrix.rank));
  const DType up_dtype = matrix.is_whole() ? matrix.down_dtype : matrix.up_dtype;
  unsigned layout = 0;
  if (address_of(matrix.down) % (dtype_bits(matrix.down_dtype) / 8) != 0) layout |= kDownBytes;
  if (address_of(matrix.up) % (dtype_bits(up_dtype) / 8) != 0) layout |= kUpBytes;
  return {.down = address_of(matrix.down),
          .up = address_of(matrix.up),
          .row_map = address_of(matrix.row_map),
          .col_map = address_of(matrix.col_map),
          .down_row_stride = matrix.down_row_stride,
          .down_col_stride = matrix.down_col_stride,
          .up_row_stride = matrix.up_row_stride,
          .up_col_stride = matrix.up_col_stride,
          .rank = matrix.is_whole() ? kWholeMatrix : static_cast<i32>(matrix.rank),
          .down_type = static_cast<u8>(type_of(matrix.down_dtype)),
          .up_type = static_cast<u8>(type_of(up_dtype)),
          .layout = static_cast<u8>(layout),
          .reserved = 0};
}

static_assert(sizeof(AnyTermRow) % 16 == 0);

}  // namespace

Type type_of(DType dtype) {
  switch (dtype) {
    case DType::F16:
      return kF16;
    case DType::BF16:
      return kBF16;
    case DType::F32:
      return kF32;
    case DType::F64:
      return kF64;
    case DType::F8_E4M3:
      return kE4M3;
    case DType::F8_E5M2:
      return kE5M2;
    case DType::F8_E4M3FNUZ:
      return kE4M3FNUZ;
    default:
      return kE5M2FNUZ;
  }
}

AnyTermRow any_term_row(const Term& term, size_t job) {
  AnyTermRow row{};
  row.matrix = matrix_row(term.matrix, job);
  row.scale = term.scale;
  if (term.times) {
    row.times = matrix_row(*term.times, job);
    row.parts |= kTimes;
  }
  if (term.times_base) row.parts |= kTimesBase;
  if (term.gain) {
    row.gain = matrix_row(term.gain->factors, job);
    row.gain_weight = term.gain->weight;
    row.parts |= kGain;
  }
  return row;
}

void check_extent(int64_t rows, int64_t cols, size_t job) {
  if (rows > kMostElements || cols > kMostElements)
    refuse_job(job, std::to_string(rows) + " x " + std::to_string(cols) +
                        " elements, expected less than 2^31 each way");
}

}  // namespace lora_mmap::cuda
