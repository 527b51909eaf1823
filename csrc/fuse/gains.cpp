#include "fuse/gains.h"

#include <atomic>
#include <cmath>
#include <memory>

#include "base/error.h"
#include "base/float_env.h"
#include "base/thread_pool.h"
#include "fuse/isa.h"
#include "fuse/job_check.h"
#include "fuse/schedule.h"

namespace lora_mmap {
namespace {

// Of the sums of single columns that wait for the rest of their group. Jobs that need more run one after
// another.
constexpr int64_t kColumnSums = (4 << 20) / sizeof(double);

// Writes what the sum `sum` of group (or row) `index` gives. False if it is not finite.
bool write_gain(const Gains& gains, int64_t index, double sum) {
  const int64_t from = gains.magnitude_map ? gains.magnitude_map[index] : index;
  const double magnitude =
      element_to_double(gains.magnitude_dtype, gains.magnitude, static_cast<uint64_t>(from));
  const double gain = sum == 0 ? 0 : magnitude / std::sqrt(sum);
  if (gains.job.dtype == DType::F64) {
    static_cast<double*>(gains.out)[index] = gain;
    return std::isfinite(sum) && std::isfinite(gain);
  }
  const float rounded = static_cast<float>(gain);
  static_cast<float*>(gains.out)[index] = rounded;
  return std::isfinite(sum) && std::isfinite(rounded);
}

bool write_gains(const Gains& gains, int64_t first, int64_t count, const double* sums) {
  bool finite = true;
  for (int64_t i = 0; i < count; ++i) finite &= write_gain(gains, first + i, sums[i]);
  return finite;
}

bool write_groups(const Gains& gains, const double* column_sums) {
  std::vector<double> sums(static_cast<size_t>(gains.n_groups), 0.0);
  for (int64_t n = 0; n < gains.job.cols; ++n) sums[static_cast<size_t>(gains.groups[n])] += column_sums[n];
  return write_gains(gains, 0, gains.n_groups, sums.data());
}

bool is_empty(const Gains& gains) {
  return gains.job.rows == 0 || gains.job.cols == 0;
}

// Jobs [first, end) of a call, their blocks all at once.
class Batch {
 public:
  Batch(const std::vector<Gains>& jobs, size_t first, const Kernel& kernel, size_t scratch_limit)
      : jobs_(jobs), first_(first), kernel_(kernel) {
    int64_t sums = 0;
    for (end_ = first; end_ < jobs.size(); ++end_) {
      const Gains& gains = jobs[end_];
      const int64_t waiting = gains.groups ? gains.job.cols : 0;
      if (end_ > first && sums + waiting > kColumnSums) break;
      offsets_.push_back(sums);
      sums += waiting;
      add(gains, scratch_limit);
    }
    column_sums_.resize(static_cast<size_t>(sums));
  }

  size_t end() const { return end_; }

  void run(int threads, std::vector<Workspace>& workspaces, std::atomic<bool>* not_finite) {
    parallel_for(threads, schedule_.blocks(), [&](int worker, int64_t index) {
      const FloatEnv env;
      if (!take(index, workspaces[static_cast<size_t>(worker)]))
        not_finite[first_ + schedule_.job_of(index)].store(true, std::memory_order_relaxed);
    });
    parallel_for(threads, static_cast<int64_t>(offsets_.size()), [&](int, int64_t i) {
      const FloatEnv env;
      const Gains& gains = jobs_[first_ + static_cast<size_t>(i)];
      bool finite = true;
      if (is_empty(gains))
        for (int64_t group = 0; group < gains.n_groups; ++group) finite &= write_gain(gains, group, 0);
      else if (gains.groups)
        finite = write_groups(gains, column_sums_.data() + offsets_[static_cast<size_t>(i)]);
      if (!finite) not_finite[first_ + static_cast<size_t>(i)].store(true, std::memory_order_relaxed);
    });
  }

 private:
  void add(const Gains& gains, size_t scratch_limit) {
    const Job& job = gains.job;
    const Tiling& tile =
        tiles_.emplace_back(is_empty(gains) ? Tiling{} : kernel_.norm_tiling(gains, scratch_limit));
    if (gains.by_columns)
      schedule_.add(job.rows, job.cols, {job.rows, tile.cols, tile.scratch_nbytes});
    else
      schedule_.add(job.rows, job.cols, {tile.rows, job.cols, tile.scratch_nbytes});
  }

  bool take(int64_t index, Workspace& workspace) {
    const size_t job = schedule_.job_of(index);
    const Block block = schedule_.block(job, index);
    const Gains& gains = jobs_[first_ + job];
    if (gains.groups) {
      kernel_.sum_squares(gains, block, tiles_[job], workspace,
                          column_sums_.data() + offsets_[job] + block.col);
      return true;
    }
    double sums[kMostNorms];
    kernel_.sum_squares(gains, block, tiles_[job], workspace, sums);
    return gains.by_columns ? write_gains(gains, block.col, block.cols, sums)
                            : write_gains(gains, block.row, block.rows, sums);
  }

  const std::vector<Gains>& jobs_;
  size_t first_;
  size_t end_;
  const Kernel& kernel_;
  std::vector<Tiling> tiles_;
  Schedule schedule_;
  std::vector<int64_t> offsets_;  // of each job's columns among the sums
  std::vector<double> column_sums_;
};

}  // namespace

std::vector<int64_t> gains(const std::vector<Gains>& jobs, int threads, const std::optional<std::string>& isa,
                           size_t scratch_nbytes) {
  if (threads < 1)
    throw Error(Fault::argument, "[gains] threads is " + std::to_string(threads) + ", expected 1 or more");
  const Kernel& kernel = choose_kernel(isa);
  check_gains(jobs, Where::host);

  std::vector<Workspace> workspaces(static_cast<size_t>(workers(threads)));
  const auto not_finite = std::make_unique<std::atomic<bool>[]>(jobs.size());
  for (size_t first = 0; first < jobs.size();) {
    Batch batch(jobs, first, kernel, scratch_of_each(threads, scratch_nbytes));
    batch.run(workers(threads), workspaces, not_finite.get());
    first = batch.end();
  }

  std::vector<int64_t> indices;
  for (size_t i = 0; i < jobs.size(); ++i)
    if (not_finite[i]) indices.push_back(static_cast<int64_t>(i));
  return indices;
}

}  // namespace lora_mmap
