// Many byte ranges of files, cut and joined into as many calls to the system.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "safetensors/file.h"

namespace lora_mmap::stream {

struct ReadRequest {
  const safetensors::File* file = nullptr;          // open, and alive until it has been read
  const safetensors::Contents* contents = nullptr;  // names what cannot be read, if given: the Header
  uint64_t offset = 0;
  uint64_t nbytes = 0;
  void* destination = nullptr;  // `nbytes` writable bytes; requests must not overlap in memory
};

// Cuts large requests and joins those that follow each other in a file, wherever they go in memory, so that
// each chunk is one run of a file of about 1 MiB. Owns nothing that the requests point to.
class Chunks {
 public:
  void add(const ReadRequest& request);
  size_t size() const { return chunks_.size(); }

  // Fills the chunk's destinations: throws as File::read_exact does. Safe for several chunks at once.
  void read(size_t chunk) const;

 private:
  struct Chunk {
    const safetensors::File* file;
    const safetensors::Contents* contents;
    uint64_t offset;
    uint64_t nbytes;
    size_t first_piece;
    size_t n_pieces;
  };

  Chunk& chunk_for(const ReadRequest& request, uint64_t offset);

  std::vector<Chunk> chunks_;
  std::vector<safetensors::Piece> pieces_;
};

}  // namespace lora_mmap::stream
