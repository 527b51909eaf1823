// A few bytes from the device to the host without stopping for them: flags of a launch, say.
#pragma once

#include <cstddef>
#include <mutex>
#include <vector>

#include "cuda/driver/device.h"

namespace lora_mmap::cuda {

// One copy into pinned memory, and the place in its stream where it is done. Move-only.
struct ReadBackBuffer {
  PinnedMemory memory;
  Event event;
};

// Pinned buffers that read-backs of a device take and give back, so that nothing is pinned per call. A buffer
// that comes back with its copy in flight is taken again only when that has ended. Thread-safe. The device's
// context must be current wherever it is used.
class ReadBackBuffers {
 public:
  ReadBackBuffer take(size_t nbytes);  // throws Error(Fault::cuda) where no memory can be pinned
  void give_back(ReadBackBuffer buffer) noexcept;

  // Waits for the copies in flight into the buffers that are not taken, then unpins those. Returns the bytes
  // freed.
  size_t free();

 private:
  std::mutex mutex_;
  std::vector<ReadBackBuffer> idle_;  // has room for every buffer there is, so giving one back cannot fail
  size_t made_ = 0;
};

// Copies `nbytes` from the device address when `stream` gets there. The memory at `address` must stay until
// then. Not for two threads at once. Destroyed before that, it gives its buffer back all the same.
class ReadBack {
 public:
  // Issues the copy; throws Error(Fault::cuda). Needs the device's context; the methods enter it.
  ReadBack(Device& device, CUstream stream, CUdeviceptr address, size_t nbytes);
  ~ReadBack();
  ReadBack(const ReadBack&) = delete;
  ReadBack& operator=(const ReadBack&) = delete;

  bool ready();  // never blocks
  void wait();   // blocks until it is; then data() holds the bytes
  const std::byte* data() const { return buffer_.memory.data(); }
  size_t nbytes() const { return nbytes_; }

 private:
  Device& device_;
  size_t nbytes_;
  ReadBackBuffer buffer_;
};

}  // namespace lora_mmap::cuda
