// A few slots of pinned memory that bytes pass through on their way to a device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "cuda/driver/api.h"

namespace lora_mmap::stream {

// Shared by every upload to one device, from any number of threads. A slot is free again when the event that
// was recorded behind its copy has passed. The device's context must be current wherever a Ring is used.
class Ring {
 public:
  static constexpr int kSlots = 4;
  static constexpr size_t kSlotNbytes = size_t{4} << 20;
  static constexpr size_t kLargeSlotNbytes = size_t{16} << 20;  // for uploads from kLargeFrom bytes on
  static constexpr size_t kLargeFrom = size_t{2} << 30;

  class Slot {  // gives the slot back when destroyed, after its copy if one was recorded. Move-only.
   public:
    std::byte* data() const;
    size_t nbytes() const;
    // Says that `stream` has been told to copy out of this slot: it is reused when that has happened.
    void copied_on(CUstream stream);
    // ...
  };

  // A slot nobody uses, once there is one. Slots are pinned as they are first needed; all of them grow when
  // an upload of `total_nbytes` is worth it. Throws Error(Fault::cuda) where no memory can be pinned.
  Slot acquire(size_t total_nbytes);

  // Waits for every copy out of the ring, then unpins it. Returns the bytes freed.
  size_t free();
  size_t nbytes() const;  // pinned now
};

}  // namespace lora_mmap::stream
