#include "stream/reader.h"

#include "base/thread_pool.h"

namespace lora_mmap::stream {
namespace {

constexpr uint64_t kParallelFrom = uint64_t{4} << 20;  // below, waking workers costs more than they save

}  // namespace

void read(std::span<const ReadRequest> requests, int threads) {
  // Before anything is cut into chunks, so that an impossible size allocates nothing.
  for (const ReadRequest& request : requests) request.file->require_range(request.offset, request.nbytes);
  Chunks chunks;
  uint64_t total = 0;
  for (const ReadRequest& request : requests) {
    chunks.add(request);
    total += request.nbytes;
  }
  const auto count = static_cast<int64_t>(chunks.size());
  parallel_for(total < kParallelFrom ? 1 : threads, count,
               [&](int, int64_t i) { chunks.read(static_cast<size_t>(i)); });
}

}  // namespace lora_mmap::stream
