// Grouped launches: a table on the device, and the kernels that walk it.
#pragma once

#include <cstdint>

#include "cuda/driver/device.h"
#include "cuda/table.h"

namespace lora_mmap::cuda {

// Uploads the table to device memory at `address` (16-byte aligned, table.nbytes() bytes, free to be
// written when `stream` gets there), then makes every launch, all on `stream` and
// asynchronously. `flags` is the address of one u32 per job of a table of jobs: flag i is set to 1 where a
// result of job i is not finite and its base was, and is left alone otherwise. Throws Error(Fault::cuda);
// kernels that cannot be had are found before anything is submitted. Needs the device's context.
void launch(Device& device, CUstream stream, const Table& table, CUdeviceptr address, CUdeviceptr flags);

// Fills the device with threads that do nothing but fp32 fma, asynchronously on `stream`; returns how many of
// them. `sink` is a float on the device. Needs the device's context.
uint64_t probe_ffma(Device& device, CUstream stream, uint32_t rounds, CUdeviceptr sink);

}  // namespace lora_mmap::cuda
