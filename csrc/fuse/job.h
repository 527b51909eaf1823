// What is to be fused: one dense rectangle of a weight and the terms that cover all of it.
//
//   acc = 0; for each term: acc = term(acc);  weight[m, n] = round(base[m, n] + acc)
//
// in fp32 (in fp64 for F64 weights), every operation rounded once; docs/numerics.md has the terms. Where base
// is not finite its bits are copied unchanged. Pointers are borrowed for the duration of a call.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/dtype.h"

namespace lora_mmap {

// The rank of a matrix that stands in memory as it is.
constexpr int64_t kWhole = -1;

// A matrix as it falls on a job's rows and columns: up @ down, or, where rank is kWhole, the values at `down`
// themselves. Strides in elements, of either sign; 0 repeats. Any alignment.
struct Matrix {
  const void* down;  // [rank, cols]; whole: [rows, cols]
  DType down_dtype;
  int64_t down_row_stride;
  int64_t down_col_stride;
  const void* up;  // [rows, rank]; whole: unused
  DType up_dtype;
  int64_t up_row_stride;
  int64_t up_col_stride;
  int64_t rank;
  const int32_t* row_map;  // [rows]: the row of up (of the whole) that serves each row; null: the same row
  const int32_t* col_map;  // [cols]: the column of down that serves each column; null: the same column

  bool is_whole() const { return rank == kWhole; }
  int64_t ranks() const { return std::max(rank, int64_t{0}); }
};

// DoRA's magnitude / norm for every row or every column.
struct Gain {
  Matrix factors;  // whole, F32 (F64 for F64 weights), one of its strides 0
  double weight;   // of the change that comes out
};

// low-rank:    for r: acc = fma(up[m, r] * scale, down[r, n], acc)
// whole:       acc = fma(matrix, scale, acc)
// times:       acc = fma(matrix * scale, times, acc)
// times_base:  acc = fma(matrix * scale, base, acc)
// gain:        t = any of the first three from 0;  acc = fma(fma(gain, base + t, -base), gain weight, acc)
struct Term {
  Matrix matrix;
  double scale;
  std::optional<Matrix> times = {};  // element by element
  bool times_base = false;           // excludes times and gain
  std::optional<Gain> gain = {};

  bool is_low_rank() const { return !matrix.is_whole() && !times && !times_base && !gain; }
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

// Of a job whose terms are all low-rank.
inline int64_t total_rank(const Job& job) {
  int64_t total = 0;
  for (const Term& term : job.terms) total += term.matrix.rank;
  return total;
}

inline bool all_low_rank(const Job& job) {
  return std::all_of(job.terms.begin(), job.terms.end(), [](const Term& term) { return term.is_low_rank(); });
}

}  // namespace lora_mmap
