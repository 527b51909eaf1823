// Memory for what is kept of tiles: many small pieces that come and go together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace lora_mmap {

// Pieces lie one after the other in blocks outside of the C++ heap, a block for each thread that allocates,
// and a block goes back to the system with the last of its pieces: the heap would keep most of what is freed
// here, hundreds of megabytes. A piece that is freed alone is not used again.
struct FreeJournalBytes {
  void operator()(uint8_t* bytes) const noexcept;  // from any thread
};
using JournalBytes = std::unique_ptr<uint8_t, FreeJournalBytes>;

// Aligned to 16 bytes; null where there is no memory.
JournalBytes allocate_journal_bytes(size_t nbytes) noexcept;

// What a piece of so many bytes takes.
constexpr size_t journal_nbytes(size_t nbytes) {
  return (nbytes + 15) / 16 * 16;
}

}  // namespace lora_mmap
