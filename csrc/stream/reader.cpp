#include "stream/reader.h"

#include <algorithm>
#include <vector>

#include "base/thread_pool.h"

namespace lora_mmap::stream {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kParallelFrom = 4 * kMiB;  // below, waking workers costs more than they save
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

}  // namespace

void read(std::span<const ReadRequest> requests, int threads) {
  // Before anything is cut into pieces, so that an impossible size allocates nothing.
  for (const ReadRequest& request : requests) request.file->require_range(request.offset, request.nbytes);
  if (total_nbytes(requests) < kParallelFrom) {
    for (const ReadRequest& request : requests) read_one(request);
    return;
  }
  const std::vector<ReadRequest> pieces = cut_into_pieces(requests);
  parallel_for(threads, static_cast<int64_t>(pieces.size()),
               [&](int, int64_t i) { read_one(pieces[static_cast<size_t>(i)]); });
}

}  // namespace lora_mmap::stream
