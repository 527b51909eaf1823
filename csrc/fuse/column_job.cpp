#include "fuse/column_job.h"

#include <utility>

namespace lora_mmap {
namespace {

bool has_only_whole(const Term& term) {
  return term.matrix.is_whole() && (!term.times || term.times->is_whole());
}

void turn(Matrix& matrix) {
  std::swap(matrix.down_row_stride, matrix.down_col_stride);
  std::swap(matrix.row_map, matrix.col_map);
}

}  // namespace

bool is_column(const Job& job) {
  return job.cols == 1 && job.rows > 1 && std::all_of(job.terms.begin(), job.terms.end(), has_only_whole);
}

Job as_row(const Job& column) {
  Job row = column;
  std::swap(row.rows, row.cols);
  std::swap(row.weight_row_stride, row.weight_col_stride);
  std::swap(row.base_row_stride, row.base_col_stride);
  for (Term& term : row.terms) {
    turn(term.matrix);
    if (term.times) turn(*term.times);
    if (term.gain) turn(term.gain->factors);
  }
  return row;
}

}  // namespace lora_mmap
