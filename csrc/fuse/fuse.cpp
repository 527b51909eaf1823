#include "fuse/fuse.h"

#include <atomic>
#include <deque>
#include <memory>

#include "base/error.h"
#include "base/float_env.h"
#include "base/thread_pool.h"
#include "fuse/column_job.h"
#include "fuse/isa.h"
#include "fuse/job_check.h"
#include "fuse/schedule.h"

namespace lora_mmap {
namespace {

// The jobs as they are run, and their blocks.
class Run {
 public:
  Run(const std::vector<Job>& jobs, const Kernel& kernel, size_t scratch_limit) {
    jobs_.reserve(jobs.size());
    for (const Job& given : jobs) {
      jobs_.push_back(is_column(given) ? &turned_.emplace_back(as_row(given)) : &given);
      const Job& job = *jobs_.back();
      const bool empty = job.rows == 0 || job.cols == 0;
      schedule_.add(job.rows, job.cols, empty ? Tiling{} : kernel.tiling(job, scratch_limit));
    }
  }

  const Job& job(size_t index) const { return *jobs_[index]; }
  const Schedule& schedule() const { return schedule_; }

 private:
  std::vector<const Job*> jobs_;
  std::deque<Job> turned_;
  Schedule schedule_;
};

void check_threads(int threads) {
  if (threads < 1)
    throw Error(Fault::argument, "[fuse] threads is " + std::to_string(threads) + ", expected 1 or more");
}

}  // namespace

std::vector<int64_t> fuse(const std::vector<Job>& jobs, int threads, const std::optional<std::string>& isa,
                          size_t scratch_nbytes) {
  check_threads(threads);
  const Kernel& kernel = choose_kernel(isa);
  check_jobs(jobs);

  const Run run(jobs, kernel, scratch_of_each(threads, scratch_nbytes));
  std::vector<Workspace> workspaces(static_cast<size_t>(workers(threads)));
  const auto overflowed = std::make_unique<std::atomic<bool>[]>(jobs.size());
  parallel_for(workers(threads), run.schedule().blocks(), [&](int worker, int64_t index) {
    const FloatEnv env;
    const size_t job = run.schedule().job_of(index);
    const Block block = run.schedule().block(job, index);
    if (kernel.fuse(run.job(job), block, workspaces[static_cast<size_t>(worker)]))
      overflowed[job].store(true, std::memory_order_relaxed);
  });

  std::vector<int64_t> indices;
  for (size_t i = 0; i < jobs.size(); ++i)
    if (overflowed[i]) indices.push_back(static_cast<int64_t>(i));
  return indices;
}

size_t fuse_scratch_nbytes(const std::vector<Job>& jobs, int threads, const std::optional<std::string>& isa) {
  check_threads(threads);
  const Kernel& kernel = choose_kernel(isa);
  check_jobs(jobs);
  const Run run(jobs, kernel, scratch_of_each(threads, kScratchNbytes));
  return run.schedule().scratch_nbytes() * static_cast<size_t>(workers(threads));
}

}  // namespace lora_mmap
