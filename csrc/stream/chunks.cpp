#include "stream/chunks.h"

#include <algorithm>
#include <span>

#include "safetensors/contents.h"

namespace lora_mmap::stream {
namespace {

constexpr uint64_t kChunkNbytes = uint64_t{1} << 20;  // network file systems send no more than this at once

const safetensors::Named kUnnamed("the bytes asked for");

}  // namespace

void Chunks::add(const ReadRequest& request) {
  for (uint64_t done = 0; done < request.nbytes;) {
    Chunk& chunk = chunk_for(request, request.offset + done);
    const uint64_t nbytes = std::min(kChunkNbytes - chunk.nbytes, request.nbytes - done);
    pieces_.push_back({static_cast<char*>(request.destination) + done, nbytes});
    ++chunk.n_pieces;
    chunk.nbytes += nbytes;
    done += nbytes;
  }
}

// The last chunk where `offset` continues it, a new one elsewhere.
Chunks::Chunk& Chunks::chunk_for(const ReadRequest& request, uint64_t offset) {
  if (!chunks_.empty()) {
    Chunk& last = chunks_.back();
    if (last.file == request.file && last.contents == request.contents &&
        last.offset + last.nbytes == offset && last.nbytes < kChunkNbytes)
      return last;
  }
  return chunks_.emplace_back(Chunk{request.file, request.contents, offset, 0, pieces_.size(), 0});
}

void Chunks::read(size_t index) const {
  const Chunk& chunk = chunks_[index];
  chunk.file->read_exact(chunk.offset, std::span(pieces_).subspan(chunk.first_piece, chunk.n_pieces),
                         chunk.contents ? *chunk.contents : kUnnamed);
}

}  // namespace lora_mmap::stream
