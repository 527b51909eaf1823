// A few bytes from the device to the host without stopping for them: flags of a launch, say.
#pragma once

#include <cstddef>

#include "cuda/driver/device.h"
#include "cuda/pinned_buffers.h"

namespace lora_mmap::cuda {

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
  PinnedBuffer buffer_;
};

}  // namespace lora_mmap::cuda
