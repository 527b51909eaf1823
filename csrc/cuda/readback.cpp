#include "cuda/readback.h"

#include <algorithm>
#include <bit>

namespace lora_mmap::cuda {
namespace {

constexpr size_t kSmallestBuffer = 4 << 10;  // a page: nothing smaller can be pinned

constexpr const char* kFunction = "CudaReadBack";

}  // namespace

ReadBackBuffer ReadBackBuffers::take(size_t nbytes) {
  {
    const std::lock_guard lock(mutex_);
    for (ReadBackBuffer& buffer : idle_) {
      if (buffer.memory.nbytes() < nbytes || !buffer.event.ready()) continue;
      std::swap(buffer, idle_.back());
      ReadBackBuffer taken = std::move(idle_.back());
      idle_.pop_back();
      return taken;
    }
  }
  ReadBackBuffer made{PinnedMemory(std::max(kSmallestBuffer, std::bit_ceil(nbytes))), Event()};
  const std::lock_guard lock(mutex_);
  idle_.reserve(++made_);
  return made;
}

void ReadBackBuffers::give_back(ReadBackBuffer buffer) noexcept {
  const std::lock_guard lock(mutex_);
  idle_.push_back(std::move(buffer));
}

size_t ReadBackBuffers::free() {
  std::vector<ReadBackBuffer> buffers;
  {
    const std::lock_guard lock(mutex_);
    buffers.swap(idle_);
  }
  size_t nbytes = 0;
  while (!buffers.empty()) {
    ReadBackBuffer& buffer = buffers.back();
    try {
      buffer.event.wait();
    } catch (...) {  // what cannot be waited for cannot be freed
      for (ReadBackBuffer& kept : buffers) give_back(std::move(kept));
      throw;
    }
    nbytes += buffer.memory.nbytes();
    buffers.pop_back();
  }
  return nbytes;
}

ReadBack::ReadBack(Device& device, CUstream stream, CUdeviceptr address, size_t nbytes)
    : device_(device), nbytes_(nbytes), buffer_(device.read_back_buffers().take(nbytes)) {
  try {
    if (nbytes > 0) driver().cuMemcpyDtoHAsync(buffer_.memory.data(), address, nbytes, stream);
  } catch (...) {
    device.read_back_buffers().give_back(std::move(buffer_));
    throw;
  }
  try {
    buffer_.event.record(stream);
  } catch (...) {  // the copy is in flight and nothing marks its end
    if (driver().cuStreamSynchronize.result(stream) != CUDA_SUCCESS) buffer_.memory.abandon();
    throw;
  }
}

ReadBack::~ReadBack() {
  if (!loaded_driver()) return;
  device_.read_back_buffers().give_back(std::move(buffer_));
}

bool ReadBack::ready() {
  const CurrentContext current = device_.enter(kFunction);
  return buffer_.event.ready();
}

void ReadBack::wait() {
  const CurrentContext current = device_.enter(kFunction);
  buffer_.event.wait();
}

}  // namespace lora_mmap::cuda
