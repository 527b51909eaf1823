#include "undo/step.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <memory>
#include <mutex>

#include "base/error.h"
#include "base/float_env.h"
#include "base/thread_pool.h"
#include "fuse/isa.h"
#include "undo/prepared_step.h"
#include "undo/step_check.h"
#include "undo/tile_step.h"

namespace lora_mmap {
namespace {

// How many tiles a worker takes at a time: it knows what comes next, and fetches it; but every worker should
// have its share.
int64_t tiles_at_once(int64_t tiles, int workers) {
  if (workers == 1) return std::max<int64_t>(tiles, 1);
  return std::clamp<int64_t>(tiles / (workers * int64_t{16}), 1, 64);
}

// The tiles of all steps as one sequence, and what came of them.
class Run {
 public:
  Run(const std::vector<Step>& steps, const TileKernel& kernel, bool force)
      : kernel_(kernel), force_(force), overflowed_(std::make_unique<std::atomic<bool>[]>(steps.size())) {
    for (const Step& step : steps) {
      const PreparedStep& prepared = steps_.emplace_back(step);
      const int64_t count = step.rows == 0 || step.cols == 0 ? 0 : prepared.grid().tiles();
      ends_.push_back(tiles() + count);
      if (count > 0) scratch_nbytes_ = std::max(scratch_nbytes_, scratch_of(prepared));
    }
  }

  int64_t tiles() const { return ends_.empty() ? 0 : ends_.back(); }

  // The most that a worker needs.
  size_t scratch_nbytes() const { return scratch_nbytes_; }

  // Takes the tiles [begin, end).
  void take(int64_t begin, int64_t end, TileScratch& scratch) {
    const FloatEnv env;
    for (int64_t tile = begin; tile < end; ++tile) {
      if (stopped_.load(std::memory_order_relaxed)) return;
      take(tile, tile + 1 < end, scratch);
    }
  }

  StepResult result() {
    StepResult result;
    for (size_t i = 0; i < steps_.size(); ++i)
      if (overflowed_[i]) result.overflowed.push_back(static_cast<int64_t>(i));
    std::sort(foreign_.begin(), foreign_.end());
    result.foreign = std::move(foreign_);
    return result;
  }

 private:
  void take(int64_t tile, bool goes_on, TileScratch& scratch) {
    const auto index =
        static_cast<size_t>(std::upper_bound(ends_.begin(), ends_.end(), tile) - ends_.begin());
    const int64_t within = tile - (index ? ends_[index - 1] : 0);
    const int64_t next = goes_on && tile + 1 < ends_[index] ? within + 1 : -1;
    const TileOutcome outcome = take_tile(kernel_, steps_[index], within, next, force_, scratch);
    if (outcome == TileOutcome::overflowed) overflowed_[index].store(true, std::memory_order_relaxed);
    if (outcome == TileOutcome::foreign) stop_at(index, within);
  }

  size_t scratch_of(const PreparedStep& step) const {
    const Block tile = step.grid().tile(0);  // the largest
    size_t nbytes = tile_values_nbytes(step.dtype(), tile.rows * tile.cols);
    for (const auto* layer : {&step.old(), &step.next()})
      if (*layer) nbytes += kernel_.scratch_nbytes((*layer)->job, tile);
    return nbytes;
  }

  void stop_at(size_t index, int64_t within) {
    stopped_.store(true, std::memory_order_relaxed);
    const Block tile = steps_[index].as_given(steps_[index].grid().tile(within));
    const std::lock_guard lock(mutex_);
    foreign_.push_back({static_cast<int64_t>(index), tile.row, tile.col});
  }

  const TileKernel& kernel_;
  const bool force_;
  std::deque<PreparedStep> steps_;
  std::vector<int64_t> ends_;  // for each step, the number of tiles up to its end
  size_t scratch_nbytes_ = 0;
  std::unique_ptr<std::atomic<bool>[]> overflowed_;
  std::atomic<bool> stopped_{false};
  std::mutex mutex_;
  std::vector<ForeignTile> foreign_;
};

// As many as fit with what each needs.
int workers_within(int threads, size_t limit, size_t nbytes_each) {
  const size_t most = std::min(limit, kScratchNbytes) / std::max<size_t>(nbytes_each, 1);
  return static_cast<int>(std::clamp<size_t>(most, 1, static_cast<size_t>(workers(threads))));
}

}  // namespace

StepResult step(const std::vector<Step>& steps, int threads, const std::optional<std::string>& isa,
                size_t scratch_nbytes, bool force) {
  if (threads < 1)
    throw Error(Fault::argument, "[step] threads is " + std::to_string(threads) + ", expected 1 or more");
  const TileKernel& kernel = choose_tile_kernel(choose_kernel(isa).name());
  check_steps(steps);

  Run run(steps, kernel, force);
  const int workers = workers_within(threads, scratch_nbytes, run.scratch_nbytes());
  std::vector<TileScratch> scratch(static_cast<size_t>(workers));
  const int64_t tiles = run.tiles();
  const int64_t at_once = tiles_at_once(tiles, workers);
  parallel_for(workers, (tiles + at_once - 1) / at_once, [&](int worker, int64_t i) {
    run.take(i * at_once, std::min((i + 1) * at_once, tiles), scratch[static_cast<size_t>(worker)]);
  });
  return run.result();
}

}  // namespace lora_mmap
