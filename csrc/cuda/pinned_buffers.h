// Small pinned buffers for what goes between host and device without anybody stopping for it.
#pragma once

#include <cstddef>
#include <mutex>
#include <vector>

#include "cuda/driver/handles.h"

namespace lora_mmap::cuda {

// One copy from or into pinned memory, and the place in its stream where it is done. Move-only.
struct PinnedBuffer {
  PinnedMemory memory;
  Event event;

  // Says that `stream` has been told to copy. On failure (Error(Fault::cuda)) the copy has ended, or the
  // memory is never used again.
  void copied_on(CUstream stream);
};

// Buffers of one device that are taken and given back, so that nothing is pinned per call. A buffer that
// comes back with its copy in flight is taken again only when that has ended: nobody waits, there is another
// or one more is pinned. Thread-safe. The device's context must be current wherever it is used.
class PinnedBuffers {
 public:
  PinnedBuffer take(size_t nbytes);  // throws Error(Fault::cuda) where no memory can be pinned
  void give_back(PinnedBuffer buffer) noexcept;

  // Waits for the copies in flight of the buffers that are not taken, then unpins those. Returns the bytes
  // freed.
  size_t free();

 private:
  std::mutex mutex_;
  std::vector<PinnedBuffer> idle_;  // has room for every buffer there is, so giving one back cannot fail
  size_t made_ = 0;
};

}  // namespace lora_mmap::cuda
