#include "stream/reader.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <vector>

namespace lora_mmap::stream {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kParallelFrom = 4 * kMiB;  // below, starting threads costs more than they save
constexpr uint64_t kPieceNbytes = kMiB;

void read_one(const ReadRequest& request) {
  request.file->read_exact(request.offset, request.nbytes, request.destination, "tensor data");
}

uint64_t total_nbytes(std::span<const ReadRequest> requests) {
  uint64_t total = 0;  // a sum beyond 2^64 needs more memory than there is
  for (const ReadRequest& request : requests) total += request.nbytes;
  return total;
}

std::vector<ReadRequest> cut_into_pieces(std::span<const ReadRequest> requests) {
  std::vector<ReadRequest> pieces;
  for (const ReadRequest& request : requests) {
    for (uint64_t done = 0; done < request.nbytes; done += kPieceNbytes)
      pieces.push_back({request.file, request.offset + done, std::min(kPieceNbytes, request.nbytes - done),
                        static_cast<char*>(request.destination) + done});
  }
  return pieces;
}

class FirstFailure {
 public:
  void record(std::exception_ptr failure) {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::move(failure);
    failed_.store(true, std::memory_order_relaxed);
  }
  bool failed() const { return failed_.load(std::memory_order_relaxed); }
  void rethrow() const {
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr failure_;
  std::atomic<bool> failed_{false};
};

}  // namespace

void read(std::span<const ReadRequest> requests, const ParallelFor& parallel) {
  // Before anything is cut into pieces, so that an impossible size allocates nothing.
  for (const ReadRequest& request : requests) request.file->require_range(request.offset, request.nbytes);
  if (total_nbytes(requests) < kParallelFrom) {
    for (const ReadRequest& request : requests) read_one(request);
    return;
  }
  const std::vector<ReadRequest> pieces = cut_into_pieces(requests);
  FirstFailure failure;
  parallel(pieces.size(), [&](size_t i) {
    if (failure.failed()) return;
    try {
      read_one(pieces[i]);
    } catch (...) {
      failure.record(std::current_exception());
    }
  });
  failure.rethrow();
}

}  // namespace lora_mmap::stream
