#include "stream/ring.h"

#include <exception>
#include <optional>

#include "cuda/driver/handles.h"

namespace lora_mmap::stream {

using cuda::CUstream;
using cuda::Event;
using cuda::PinnedMemory;

struct Ring::Entry {
  bool taken = false;  // this one and `used` belong to the ring's mutex
  uint64_t used = 0;   // when it was last given back: the smaller, the sooner its copy ends
  PinnedMemory memory;
  std::optional<Event> event;
  bool in_flight = false;  // `event` lies behind a copy out of `memory`

  void wait_for_copy() {
    if (!idle()) event->wait();
    in_flight = false;
  }
  // False as well where the driver cannot say: whoever takes it then waits, and gets the error.
  bool idle() const {
    return !in_flight || cuda::driver().cuEventQuery.result(event->get()) == cuda::CUDA_SUCCESS;
  }
  size_t unpin() {
    wait_for_copy();
    const size_t nbytes = memory.nbytes();
    memory.free();
    event.reset();
    return nbytes;
  }
};

Ring::Ring() : entries_(std::make_unique<Entry[]>(kSlots)) {}
Ring::~Ring() = default;

// The best of those that are not taken: pinned and idle, then one that is still to be pinned, then the one
// whose copy was issued first.
Ring::Entry& Ring::take() {
  std::unique_lock lock(mutex_);
  for (;;) {
    Entry* best = nullptr;
    int best_rank = 0;
    for (int i = 0; i < kSlots; ++i) {
      Entry& entry = entries_[i];
      if (entry.taken) continue;
      const int rank = entry.memory.nbytes() == 0 ? 2 : entry.idle() ? 3 : 1;
      if (best && (rank < best_rank || (rank == best_rank && entry.used > best->used))) continue;
      best = &entry;
      best_rank = rank;
    }
    if (best) {
      best->taken = true;
      return *best;
    }
    given_back_.wait(lock);
  }
}

void Ring::give_back(Entry& entry) noexcept {
  {
    const std::lock_guard lock(mutex_);
    entry.taken = false;
    entry.used = ++uses_;
  }
  // All: free() waits for one slot in particular.
  given_back_.notify_all();
}

Ring::Slot Ring::acquire(uint64_t total_nbytes) {
  Slot slot(*this, take());
  Entry& entry = *slot.entry_;
  entry.wait_for_copy();
  const size_t wanted = slot_nbytes(total_nbytes);
  if (entry.memory.nbytes() < wanted) {
    entry.unpin();  // first, so that the ring never holds more than its bound
    PinnedMemory memory(wanted);
    entry.event.emplace();
    entry.memory = std::move(memory);
  }
  return slot;
}

size_t Ring::free() {
  size_t nbytes = 0;
  for (int i = 0; i < kSlots; ++i) {
    Entry& entry = entries_[i];
    {
      std::unique_lock lock(mutex_);
      given_back_.wait(lock, [&] { return !entry.taken; });
      entry.taken = true;
    }
    const Slot slot(*this, entry);
    nbytes += entry.unpin();
  }
  return nbytes;
}

Ring::Slot::~Slot() {
  if (entry_) ring_->give_back(*entry_);
}

std::byte* Ring::Slot::data() const {
  return entry_->memory.data();
}

size_t Ring::Slot::nbytes() const {
  return entry_->memory.nbytes();
}

void Ring::Slot::copied_on(CUstream stream) {
  try {
    entry_->event->record(stream);
    entry_->in_flight = true;
  } catch (...) {  // nothing marks the end of the copies: wait for all that the stream does
    if (cuda::driver().cuStreamSynchronize.result(stream) != cuda::CUDA_SUCCESS) entry_->memory.abandon();
    throw;
  }
}

}  // namespace lora_mmap::stream
