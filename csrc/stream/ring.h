// A few slots of pinned memory that bytes pass through on their way to a device.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

#include "cuda/driver/api.h"

namespace lora_mmap::stream {

// Shared by every upload to one device, from any number of threads; a thread holds at most one slot at a
// time, or several could wait for each other for ever. A slot is free again when the event that was recorded
// behind its copy has passed. The device's context must be current wherever a Ring is used.
class Ring {
 public:
  static constexpr int kSlots = 8;
  static constexpr size_t kSlotNbytes = size_t{4} << 20;
  static constexpr size_t kLargeSlotNbytes = size_t{16} << 20;  // for uploads from kLargeFrom bytes on
  static constexpr uint64_t kLargeFrom = uint64_t{2} << 30;

  // What a slot has at least that was acquired for an upload of `total_nbytes`.
  static constexpr size_t slot_nbytes(uint64_t total_nbytes) {
    return total_nbytes < kLargeFrom ? kSlotNbytes : kLargeSlotNbytes;
  }

  class Slot;

  Ring();
  ~Ring();

  // A slot nobody uses, once there is one. Slots are pinned as they are first needed; each grows when an
  // upload of `total_nbytes` is worth it. Throws Error(Fault::cuda) where no memory can be pinned.
  Slot acquire(uint64_t total_nbytes);

  // Waits for every slot's holder and copy, slot by slot, and unpins it. Returns the bytes freed.
  size_t free();

 private:
  struct Entry;

  Entry& take();
  void give_back(Entry& entry) noexcept;

  std::mutex mutex_;
  std::condition_variable given_back_;
  std::unique_ptr<Entry[]> entries_;  // the members of an entry that is taken belong to who took it
  uint64_t uses_ = 0;
};

// Gives the slot back when destroyed; it is reused after the copy if one was announced. Move-only.
class Ring::Slot {
 public:
  Slot(Slot&& other) noexcept : ring_(other.ring_), entry_(std::exchange(other.entry_, nullptr)) {}
  Slot& operator=(Slot&&) = delete;
  ~Slot();

  std::byte* data() const;
  size_t nbytes() const;

  // Says that `stream` has been told to copy out of this slot. Once per slot, after every such copy. On
  // failure (Error(Fault::cuda)) the copies have ended, or the slot's memory is never used again.
  void copied_on(cuda::CUstream stream);

 private:
  friend class Ring;
  Slot(Ring& ring, Entry& entry) : ring_(&ring), entry_(&entry) {}

  Ring* ring_;
  Entry* entry_;
};

}  // namespace lora_mmap::stream
