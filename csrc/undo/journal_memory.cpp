#include "undo/journal_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <new>

namespace lora_mmap {
namespace {

// What blocks are aligned to, so that a piece's address leads to its block. Pages that were never written to
// take no memory.
constexpr size_t kBlockNbytes = size_t{1} << 20;

// At the start of its own memory.
struct Block {
  size_t nbytes;
  size_t used;                 // by the thread that allocates from it
  std::atomic<size_t> owners;  // its pieces, and the thread
};
constexpr size_t kFirstPiece = journal_nbytes(sizeof(Block));

// Null where there is no memory.
std::byte* map_aligned(size_t nbytes) noexcept {
  const size_t all = nbytes + kBlockNbytes;
  void* const address = ::mmap(nullptr, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) return nullptr;
  auto* const begin = static_cast<std::byte*>(address);
  const size_t before = (kBlockNbytes - reinterpret_cast<uintptr_t>(begin) % kBlockNbytes) % kBlockNbytes;
  const size_t after = all - before - nbytes;
  if (before > 0) ::munmap(begin, before);
  if (after > 0) ::munmap(begin + before + nbytes, after);
  return begin + before;
}

Block* new_block(size_t nbytes) noexcept {
  std::byte* const memory = map_aligned(nbytes);
  return memory ? new (memory) Block{nbytes, kFirstPiece, 1} : nullptr;
}

void let_go(Block* block) noexcept {
  if (block && block->owners.fetch_sub(1, std::memory_order_acq_rel) == 1) ::munmap(block, block->nbytes);
}

// The block of one thread.
class Current {
 public:
  ~Current() { let_go(block_); }

  uint8_t* allocate(size_t nbytes) noexcept {
    if (!block_ || block_->nbytes - block_->used < nbytes) {
      Block* const fresh = new_block(std::max(kBlockNbytes, kFirstPiece + nbytes));
      if (!fresh) return nullptr;
      let_go(block_);
      block_ = fresh;
    }
    uint8_t* const piece = reinterpret_cast<uint8_t*>(block_) + block_->used;
    block_->used += nbytes;
    block_->owners.fetch_add(1, std::memory_order_relaxed);
    return piece;
  }

 private:
  Block* block_ = nullptr;
};

thread_local Current current;

}  // namespace

void FreeJournalBytes::operator()(uint8_t* bytes) const noexcept {
  let_go(reinterpret_cast<Block*>(bytes - reinterpret_cast<uintptr_t>(bytes) % kBlockNbytes));
}

JournalBytes allocate_journal_bytes(size_t nbytes) noexcept {
  return JournalBytes(current.allocate(journal_nbytes(nbytes)));
}

}  // namespace lora_mmap
