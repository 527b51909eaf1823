// DoRA's factors: magnitude / norm of base + t, for every row or every group of columns of a term's
// rectangle.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fuse/job.h"
#include "fuse/scratch.h"

namespace lora_mmap {

// out[i] = compute(double(magnitude) / sqrt(sum of v * v)), v = base + t rounded to the compute type of the
// job; 0 where the sum is 0. Squares, sums and division in fp64, each rounded: over a row in 16 lanes, column
// n in lane n % 16, the lanes added up in order; over a group of columns each column from the first row to
// the last, then the columns in order.
struct Gains {
  Job job;  // one term without a gain; the weight is not touched
  bool by_columns;
  const int32_t* groups;  // [cols]: the group of each column; null: each its own (and for rows)
  int64_t n_groups;       // of rows: job.rows
  const void* magnitude;  // any alignment
  DType magnitude_dtype;
  const int32_t* magnitude_map;  // [n_groups]: which magnitude each takes; null: its own
  void* out;                     // [n_groups] float, or double for an F64 job; aligned
};

constexpr int64_t kNormLanes = 16;
constexpr int64_t kMostNorms = 256;

// Computes all of `jobs` on up to `threads` threads; the bits depend on neither `threads` nor `isa`. Returns
// the indices, ascending, of those with a norm or a result that is not finite; everything is written all the
// same. Scratch as for fuse(). Throws Error(Fault::argument) before the first byte is written if one makes no
// sense.
std::vector<int64_t> gains(const std::vector<Gains>& jobs, int threads,
                           const std::optional<std::string>& isa = std::nullopt,
                           size_t scratch_nbytes = kScratchNbytes);

}  // namespace lora_mmap
