#include "fuse/fuse.h"

#include <algorithm>
#include <atomic>
#include <memory>

#include "base/error.h"
#include "base/float_env.h"
#include "base/thread_pool.h"
#include "fuse/isa.h"
#include "fuse/job_check.h"

namespace lora_mmap {
namespace {

constexpr size_t kScratchNbytes = size_t{16} << 20;  // of all workers together
constexpr int kMostThreads = 192;                    // leaves each 85 KiB: enough for the smallest block

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
  check_jobs(jobs);
  for (size_t i = 0; i < jobs.size(); ++i)
    if (!all_low_rank(jobs[i])) refuse_job(i, "a term that is not low-rank, not built yet");
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
