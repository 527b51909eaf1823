// The blocks of many jobs as one sequence.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "fuse/job.h"
#include "fuse/kernel.h"

namespace lora_mmap {

// All blocks of all jobs: those of a job in turn, rows fastest, so that a worker that takes the next one
// often finds A packed.
class Schedule {
 public:
  // The next job; without elements it has no block.
  void add(int64_t rows, int64_t cols, const Tiling& tiling) {
    const bool empty = rows == 0 || cols == 0;
    jobs_.push_back({rows, cols, empty ? Tiling{1, 1, 0} : tiling});
    ends_.push_back(blocks() + (empty ? 0 : blocks_of(rows, tiling.rows) * blocks_of(cols, tiling.cols)));
    if (!empty) scratch_nbytes_ = std::max(scratch_nbytes_, tiling.scratch_nbytes);
  }

  int64_t blocks() const { return ends_.empty() ? 0 : ends_.back(); }

  // The most that a worker needs.
  size_t scratch_nbytes() const { return scratch_nbytes_; }

  size_t job_of(int64_t block) const {
    return static_cast<size_t>(std::upper_bound(ends_.begin(), ends_.end(), block) - ends_.begin());
  }

  Block block(size_t index, int64_t block) const {
    const auto& [rows, cols, tiling] = jobs_[index];
    const int64_t within = block - (index ? ends_[index - 1] : 0);
    const int64_t down = blocks_of(rows, tiling.rows);
    const int64_t row = within % down * tiling.rows;
    const int64_t col = within / down * tiling.cols;
    return {row, col, std::min(tiling.rows, rows - row), std::min(tiling.cols, cols - col)};
  }

 private:
  struct Size {
    int64_t rows;
    int64_t cols;
    Tiling tiling;
  };

  static int64_t blocks_of(int64_t size, int64_t step) { return (size + step - 1) / step; }

  std::vector<Size> jobs_;
  std::vector<int64_t> ends_;  // for each job, the number of blocks up to its end
  size_t scratch_nbytes_ = 0;
};

}  // namespace lora_mmap
