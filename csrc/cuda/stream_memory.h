// Small things written to a device's memory in the order of a stream. Nobody waits.
#pragma once

#include <cstddef>

#include "cuda/driver/device.h"

namespace lora_mmap::cuda {

// Both write memory that is free to be written when `stream` gets there, asynchronously. They throw
// Error(Fault::cuda) and need the device's context.

// `data` is not needed any more when this returns: it goes by way of a pinned buffer that no earlier call
// waits for.
void put(Device& device, CUstream stream, const void* data, size_t nbytes, CUdeviceptr address);

void put_zeros(CUstream stream, size_t nbytes, CUdeviceptr address);

}  // namespace lora_mmap::cuda
