// What is to be fused: one dense rectangle of a weight and the low-rank terms that cover all of it.
//
//   acc = 0; for each term, for each r:  acc = fma(float(up[m, r]) * float(scale), float(down[r, n]), acc)
//   weight[m, n] = round(base[m, n] + acc)
//
// in fp32 (in fp64 for F64 weights), each product up * scale rounded once. Where base is not finite its bits
// are copied unchanged. Pointers are borrowed for the duration of a call.
#pragma once

#include <cstdint>
#include <vector>

#include "base/dtype.h"

namespace lora_mmap {

struct Term {
  const void* down;  // A [rank, cols], each row contiguous; any alignment
  DType down_dtype;
  int64_t down_row_stride;  // in elements
  const void* up;           // B [rows, rank], each row contiguous; any alignment
  DType up_dtype;
  int64_t up_row_stride;  // in elements
  int64_t rank;
  double scale;
  const int32_t* row_map;  // [rows]: the row of B that serves each row of the job; null: the same row
  const int32_t* col_map;  // [cols]: the column of A that serves each column of the job; null: the same
};

struct Job {
  void* weight;      // aligned to its element
  const void* base;  // pristine values: `weight` itself, or memory that does not overlap it
  int64_t rows;
  int64_t cols;
  int64_t weight_row_stride;  // strides in elements, of either sign
  int64_t weight_col_stride;
  int64_t base_row_stride;
  int64_t base_col_stride;
  DType dtype;  // of weight and base: F16, BF16, F32 or F64
  std::vector<Term> terms;
};

// The rectangle of a job that one work item covers.
struct Block {
  int64_t row;
  int64_t col;
  int64_t rows;
  int64_t cols;
};

inline int64_t total_rank(const Job& job) {
  int64_t total = 0;
  for (const Term& term : job.terms) total += term.rank;
  return total;
}

}  // namespace lora_mmap
