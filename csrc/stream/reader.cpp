#include "stream/reader.h"

#include <algorithm>
#include <vector>

#include "base/thread_pool.h"
#include "safetensors/contents.h"

namespace lora_mmap::stream {
namespace {

using safetensors::Piece;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kParallelFrom = 4 * kMiB;  // below, waking workers costs more than they save
constexpr uint64_t kChunkNbytes = kMiB;       // network file systems send no more than this at once

const safetensors::Named kUnnamed("the bytes asked for");

// One call to the system: a run of the file, and the pieces it fills.
struct Chunk {
  const ReadRequest* request = nullptr;  // whose file and contents
  uint64_t offset = 0;
  uint64_t nbytes = 0;
  size_t first_piece = 0;
  size_t n_pieces = 0;
};

struct Chunks {
  std::vector<Chunk> chunks;
  std::vector<Piece> pieces;

  void add(const ReadRequest& request) {
    for (uint64_t done = 0; done < request.nbytes;) {
      const uint64_t offset = request.offset + done;
      if (!continues_last(request, offset)) chunks.push_back({&request, offset, 0, pieces.size(), 0});
      Chunk& chunk = chunks.back();
      const uint64_t nbytes = std::min(kChunkNbytes - chunk.nbytes, request.nbytes - done);
      pieces.push_back({static_cast<char*>(request.destination) + done, nbytes});
      ++chunk.n_pieces;
      chunk.nbytes += nbytes;
      done += nbytes;
    }
  }

 private:
  bool continues_last(const ReadRequest& request, uint64_t offset) const {
    if (chunks.empty()) return false;
    const Chunk& last = chunks.back();
    return last.request->file == request.file && last.offset + last.nbytes == offset &&
           last.nbytes < kChunkNbytes;
  }
};

}  // namespace

void read(std::span<const ReadRequest> requests, int threads) {
  // Before anything is cut into chunks, so that an impossible size allocates nothing.
  for (const ReadRequest& request : requests) request.file->require_range(request.offset, request.nbytes);
  Chunks all;
  uint64_t total = 0;
  for (const ReadRequest& request : requests) {
    all.add(request);
    total += request.nbytes;
  }
  const auto read_chunk = [&](int, int64_t i) {
    const Chunk& chunk = all.chunks[static_cast<size_t>(i)];
    chunk.request->file->read_exact(chunk.offset,
                                    std::span(all.pieces).subspan(chunk.first_piece, chunk.n_pieces),
                                    chunk.request->contents ? *chunk.request->contents : kUnnamed);
  };
  const auto count = static_cast<int64_t>(all.chunks.size());
  parallel_for(total < kParallelFrom ? 1 : threads, count, read_chunk);
}

}  // namespace lora_mmap::stream
