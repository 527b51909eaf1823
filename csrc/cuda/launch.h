// Grouped launches: a table on the device, and the kernels that walk it.
#pragma once

#include "cuda/driver/device.h"
#include "cuda/table.h"

namespace lora_mmap::cuda {

// Uploads the table to device memory at `address` (16-byte aligned, table.bytes.size() bytes, free to be
// written when `stream` gets there), then makes every launch, all on `stream` and
// asynchronously. `flags` is the address of one u32 per job of a table of jobs: flag i is set to 1 where a
// result of job i is not finite and its base was, and is left alone otherwise. Throws Error(Fault::cuda);
// kernels that cannot be had are found before anything is submitted. Needs the device's context.
void launch(Device& device, CUstream stream, const Table& table, CUdeviceptr address, CUdeviceptr flags);

}  // namespace lora_mmap::cuda
