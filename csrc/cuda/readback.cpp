#include "cuda/readback.h"

namespace lora_mmap::cuda {
namespace {

constexpr const char* kFunction = "CudaReadBack";

}  // namespace

ReadBack::ReadBack(Device& device, CUstream stream, CUdeviceptr address, size_t nbytes)
    : device_(device), nbytes_(nbytes), buffer_(device.pinned_buffers().take(nbytes)) {
  try {
    if (nbytes > 0) driver().cuMemcpyDtoHAsync(buffer_.memory.data(), address, nbytes, stream);
  } catch (...) {
    device.pinned_buffers().give_back(std::move(buffer_));
    throw;
  }
  buffer_.copied_on(stream);
}

ReadBack::~ReadBack() {
  if (!loaded_driver()) return;
  device_.pinned_buffers().give_back(std::move(buffer_));
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
