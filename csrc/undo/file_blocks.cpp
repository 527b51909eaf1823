#include "undo/file_blocks.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/float_env.h"
#include "base/thread_pool.h"
#include "fuse/isa.h"
#include "fuse/scratch.h"

namespace lora_mmap {
namespace {

// Large, so that the system's work for each call and for each run of pages is small beside the copy; yet what
// is read, and the weight's bytes beside it, should still be in the cache when they are used.
constexpr size_t kMostNbytes = size_t{5} << 18;

int checked(const char* function, int threads) {
  if (threads < 1)
    throw Error(Fault::argument, "[" + std::string(function) + "] threads is " + std::to_string(threads) +
                                     ", expected 1 or more");
  return threads;
}

}  // namespace

FileBlocks::FileBlocks(const char* function, int threads, const std::optional<std::string>& isa)
    : workers_(lora_mmap::workers(checked(function, threads))),
      vectorised_(choose_kernel(isa).name() != "scalar"),
      most_nbytes_(std::min(kMostNbytes, scratch_of_each(threads, kScratchNbytes))) {}

void FileBlocks::add(const FilePart& part, int64_t row_step, int64_t col_step) {
  const FileReader& reader = readers_.emplace_back(part, vectorised_);
  if (reader.turned()) std::swap(row_step, col_step);
  schedule_.add(reader.rows(), reader.cols(), reader.tiling(row_step, col_step, most_nbytes_));
}

void FileBlocks::for_each(const std::function<void(const Work&)>& use) const {
  std::vector<Workspace> workspaces(static_cast<size_t>(workers_));
  parallel_for(workers_, schedule_.blocks(), [&](int worker, int64_t index) {
    const FloatEnv env;
    const size_t part = schedule_.job_of(index);
    use({part, readers_[part], schedule_.block(part, index), worker,
         workspaces[static_cast<size_t>(worker)]});
  });
}

}  // namespace lora_mmap
