#include "cuda/stream_memory.h"

#include <cstring>
#include <utility>

#include "cuda/driver/driver.h"
#include "cuda/pinned_buffers.h"

namespace lora_mmap::cuda {

void put(Device& device, CUstream stream, const void* data, size_t nbytes, CUdeviceptr address) {
  if (nbytes == 0) return;
  PinnedBuffers& buffers = device.pinned_buffers();
  PinnedBuffer buffer = buffers.take(nbytes);
  std::memcpy(buffer.memory.data(), data, nbytes);
  try {
    driver().cuMemcpyHtoDAsync(address, buffer.memory.data(), nbytes, stream);
  } catch (...) {
    buffers.give_back(std::move(buffer));
    throw;
  }
  buffer.copied_on(stream);
  buffers.give_back(std::move(buffer));
}

void put_zeros(CUstream stream, size_t nbytes, CUdeviceptr address) {
  if (nbytes > 0) driver().cuMemsetD8Async(address, 0, nbytes, stream);
}

}  // namespace lora_mmap::cuda
