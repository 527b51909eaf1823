#include "cuda/pinned_buffers.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace lora_mmap::cuda {
namespace {

constexpr size_t kSmallestBuffer = 4 << 10;  // a page: nothing smaller can be pinned

}  // namespace

void PinnedBuffer::copied_on(CUstream stream) {
  try {
    event.record(stream);
  } catch (...) {
    if (driver().cuStreamSynchronize.result(stream) != CUDA_SUCCESS) memory.abandon();
    throw;
  }
}

PinnedBuffer PinnedBuffers::take(size_t nbytes) {
  {
    const std::lock_guard lock(mutex_);
    for (PinnedBuffer& buffer : idle_) {
      if (buffer.memory.nbytes() < nbytes || !buffer.event.ready()) continue;
      std::swap(buffer, idle_.back());
      PinnedBuffer taken = std::move(idle_.back());
      idle_.pop_back();
      return taken;
    }
  }
  PinnedBuffer made{PinnedMemory(std::max(kSmallestBuffer, std::bit_ceil(nbytes))), Event()};
  const std::lock_guard lock(mutex_);
  idle_.reserve(++made_);
  return made;
}

void PinnedBuffers::give_back(PinnedBuffer buffer) noexcept {
  const std::lock_guard lock(mutex_);
  idle_.push_back(std::move(buffer));
}

size_t PinnedBuffers::free() {
  std::vector<PinnedBuffer> buffers;
  {
    const std::lock_guard lock(mutex_);
    buffers.swap(idle_);
  }
  size_t nbytes = 0;
  while (!buffers.empty()) {
    PinnedBuffer& buffer = buffers.back();
    try {
      buffer.event.wait();
    } catch (...) {  // what cannot be waited for cannot be freed
      for (PinnedBuffer& kept : buffers) give_back(std::move(kept));
      throw;
    }
    nbytes += buffer.memory.nbytes();
    buffers.pop_back();
  }
  return nbytes;
}

}  // namespace lora_mmap::cuda
