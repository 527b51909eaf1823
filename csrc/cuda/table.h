// The descriptor tables of the grouped kernels, built on the host. Knows nothing of the driver.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "fuse/copy.h"
#include "fuse/job.h"

namespace lora_mmap::cuda {

// `ordered` gives the CPU kernels' bits. `fast` lets 16-bit factor pairs through the tensor cores; whatever
// they do not fit (other factors, fp64 weights) is computed as `ordered`.
enum class Numerics { ordered, fast };

// One launch of a kernel over a part of a table.
struct Launch {
  const char* kernel;
  uint32_t threads;  // of a block
  uint32_t shared_nbytes;
  uint32_t tiles;
  uint32_t rows;
  size_t rows_offset;   // in the table, in bytes
  size_t terms_offset;  // likewise; unused by copies
  bool copies = false;  // takes CopyParams, not FuseParams
};

struct Table {
  std::vector<std::byte> bytes;
  std::vector<Launch> launches;  // in any order: they write different elements
};

// For a device of compute capability `arch` (10 * major + minor). Flag i belongs to job i; jobs without
// elements and terms without ranks are left out. Throws Error(Fault::argument) as fuse() does, and where a
// size is beyond what the kernels count.
Table fuse_table(const std::vector<Job>& jobs, Numerics numerics, int arch);

// Throws Error(Fault::argument) as copy() does.
Table copy_table(const std::vector<Rect>& rects);

}  // namespace lora_mmap::cuda
