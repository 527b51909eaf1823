// Grouped launches: many jobs, one table, one kernel per kind of arithmetic.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda/driver/device.h"
#include "cuda/table.h"

namespace lora_mmap::cuda {

// Fuses all jobs (addresses are the device's) on `stream`, asynchronously: uploads the table to `table`
// (fuse_table_nbytes() bytes, 16-byte aligned) through the ring on that stream, then launches. Sets flags[i],
// a u32 on the device, for job i where a result is not finite and the base was; leaves the others. Throws
// Error(Fault::argument) as fuse_table() does and Error(Fault::cuda), in both cases before anything was
// launched where that can be known. Needs the device's context.
void fuse(Device& device, CUstream stream, const std::vector<Job>& jobs, Numerics numerics, CUdeviceptr table,
          size_t table_nbytes, CUdeviceptr flags);

// Copies all rectangles on `stream`, asynchronously. Likewise, with copy_table_nbytes() bytes.
void copy(Device& device, CUstream stream, const std::vector<Rect>& rects, CUdeviceptr table,
          size_t table_nbytes);

// Fills the device with threads that do nothing but fp32 fma, asynchronously on `stream`; returns how many of
// them. `sink` is a float on the device. Needs the device's context.
uint64_t probe_ffma(Device& device, CUstream stream, uint32_t rounds, CUdeviceptr sink);

}  // namespace lora_mmap::cuda
