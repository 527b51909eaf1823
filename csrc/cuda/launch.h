// Grouped launches: many jobs, one table, one kernel per kind of arithmetic.
#pragma once

#include <cstddef>
#include <vector>

#include "cuda/driver/device.h"
#include "fuse/copy.h"
#include "fuse/job.h"

namespace lora_mmap::cuda {

// `ordered` gives the CPU kernels' bits. `fast` lets 16-bit factor pairs through the tensor cores; whatever
// they do not fit (other factors, fp64 weights) is computed as `ordered`.
enum class Numerics { ordered, fast };

// Device memory that a launch needs for its table, 16-byte aligned.
size_t fuse_table_nbytes(const std::vector<Job>& jobs);
size_t copy_table_nbytes(const std::vector<Rect>& rects);

// Fuses all jobs (addresses are the device's) on `stream`, asynchronously: uploads the table to `table`
// through the ring on that stream, then launches. Sets flags[i], a u32 on the device, for job i
// where a result is not finite and the base was; leaves the others. Throws Error(Fault::argument) as fuse()
// does and Error(Fault::cuda), in both cases before anything was launched where that can be known. Needs the
// device's context.
void fuse(Device& device, CUstream stream, const std::vector<Job>& jobs, Numerics numerics, CUdeviceptr table,
          size_t table_nbytes, CUdeviceptr flags);

// Copies all rectangles on `stream`, asynchronously. Likewise.
void copy(Device& device, CUstream stream, const std::vector<Rect>& rects, CUdeviceptr table,
          size_t table_nbytes);

}  // namespace lora_mmap::cuda
