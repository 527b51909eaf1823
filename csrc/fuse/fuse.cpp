#include "fuse/fuse.h"

#include <algorithm>
#include <atomic>
#include <memory>

#include "base/error.h"
#include "base/float_env.h"
#include "base/thread_pool.h"
#include "fuse/isa.h"
#include "fuse/weight_format.h"

namespace lora_mmap {
namespace {

constexpr size_t kScratchNbytes = size_t{16} << 20;  // of all workers together
constexpr int kMostThreads = 192;                    // leaves each 85 KiB: enough for the smallest block

[[noreturn]] void refuse(size_t job, const std::string& what) {
  throw Error(Fault::argument, "[fuse] job " + std::to_string(job) + ": " + what);
}

void check(const Term& term, size_t job, bool empty) {
  if (term.rank < 0) refuse(job, "rank is " + std::to_string(term.rank));
  for (const DType dtype : {term.down_dtype, term.up_dtype})
    if (!is_factor_dtype(dtype)) refuse(job, "a factor of type " + std::string(dtype_name(dtype)));
  if (!empty && term.rank > 0 && (!term.down || !term.up)) refuse(job, "a factor is a null pointer");
}

void check(const Job& job, size_t index) {
  const bool empty = job.rows == 0 || job.cols == 0;
  if (job.rows < 0 || job.cols < 0) refuse(index, "negative size");
  if (!is_weight_dtype(job.dtype))
    refuse(index,
           "a weight of type " + std::string(dtype_name(job.dtype)) + ", expected F16, BF16, F32 or F64");
  if (!empty && (!job.weight || !job.base)) refuse(index, "the weight or its base is a null pointer");
  for (const int64_t stride :
       {job.weight_row_stride, job.weight_col_stride, job.base_row_stride, job.base_col_stride})
    if (!empty && stride == 0) refuse(index, "a stride is 0");
  for (const Term& term : job.terms) check(term, index, empty);
}

// All blocks of all jobs in one sequence: those of a job in turn, rows fastest, so that a worker that takes
// the next one often finds A packed.
class Schedule {
 public:
  Schedule(const std::vector<Job>& jobs, const Kernel& kernel, size_t scratch_limit) : jobs_(jobs) {
    int64_t blocks = 0;
    for (const Job& job : jobs) {
      if (job.rows > 0 && job.cols > 0) {
        tilings_.push_back(kernel.tiling(job, scratch_limit));
        blocks += blocks_of(job.rows, tilings_.back().rows) * blocks_of(job.cols, tilings_.back().cols);
      } else {
        tilings_.push_back({1, 1, 0});
      }
      ends_.push_back(blocks);
    }
  }

  int64_t blocks() const { return ends_.empty() ? 0 : ends_.back(); }

  size_t job_of(int64_t block) const {
    return static_cast<size_t>(std::upper_bound(ends_.begin(), ends_.end(), block) - ends_.begin());
  }

  Block block(size_t index, int64_t block) const {
    const Job& job = jobs_[index];
    const Tiling& tiling = tilings_[index];
    const int64_t within = block - (index ? ends_[index - 1] : 0);
    const int64_t down = blocks_of(job.rows, tiling.rows);
    const int64_t row = within % down * tiling.rows;
    const int64_t col = within / down * tiling.cols;
    return {row, col, std::min(tiling.rows, job.rows - row), std::min(tiling.cols, job.cols - col)};
  }

 private:
  static int64_t blocks_of(int64_t size, int64_t step) { return (size + step - 1) / step; }

  const std::vector<Job>& jobs_;
  std::vector<Tiling> tilings_;
  std::vector<int64_t> ends_;  // for each job, the number of blocks up to its end
};

}  // namespace

std::vector<int64_t> fuse(const std::vector<Job>& jobs, int threads, const std::optional<std::string>& isa) {
  if (threads < 1)
    throw Error(Fault::argument, "[fuse] threads is " + std::to_string(threads) + ", expected 1 or more");
  const Kernel& kernel = choose_kernel(isa);
  for (size_t i = 0; i < jobs.size(); ++i) check(jobs[i], i);
  threads = std::min(threads, kMostThreads);

  const Schedule schedule(jobs, kernel, kScratchNbytes / static_cast<size_t>(threads));
  std::vector<Workspace> workspaces(static_cast<size_t>(threads));
  const auto overflowed = std::make_unique<std::atomic<bool>[]>(jobs.size());
  parallel_for(threads, schedule.blocks(), [&](int worker, int64_t block) {
    const FloatEnv env;
    const size_t job = schedule.job_of(block);
    if (kernel.fuse(jobs[job], schedule.block(job, block), workspaces[static_cast<size_t>(worker)]))
      overflowed[job].store(true, std::memory_order_relaxed);
  });

  std::vector<int64_t> indices;
  for (size_t i = 0; i < jobs.size(); ++i)
    if (overflowed[i]) indices.push_back(static_cast<int64_t>(i));
  return indices;
}

}  // namespace lora_mmap
