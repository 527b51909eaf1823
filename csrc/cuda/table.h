// The descriptor tables of the grouped kernels, built on the host. Knows nothing of the driver.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "fuse/copy.h"
#include "fuse/gains.h"
#include "fuse/job.h"

namespace lora_mmap::cuda {

// `ordered` gives the CPU kernels' bits. `fast` lets 16-bit factor pairs through the tensor cores; whatever
// they do not fit (other factors, fp64 weights) is computed as `ordered`.
enum class Numerics { ordered, fast };

// Which of the structs in kernels/table.h a kernel is launched with.
enum class Takes { fuse, gains, copy, step, forced_step };

// One launch of a kernel over a part of a table.
struct Launch {
  const char* kernel;
  uint32_t threads;  // of a block
  uint32_t shared_nbytes;
  uint32_t tiles;
  uint32_t rows;
  size_t rows_offset;   // in the table, in bytes
  size_t terms_offset;  // likewise; unused by copies
  Takes takes = Takes::fuse;
};

struct Table {
  std::vector<std::byte> bytes;
  std::vector<Launch> launches;  // to be made in this order
  size_t sums_nbytes = 0;        // memory that the launches need behind the bytes, of any content
  std::vector<uint64_t> data;    // where the rectangles begin that are read or written in place

  size_t nbytes() const { return bytes.size() + sums_nbytes; }
};

// For a device of compute capability `arch` (10 * major + minor). Flag i belongs to job i; jobs without
// elements and terms without ranks are left out. Throws Error(Fault::argument) as fuse() does, and where a
// size is beyond what the kernels count.
Table fuse_table(const std::vector<Job>& jobs, Numerics numerics, int arch);

// DoRA's factors. Flag i belongs to job i. Throws Error(Fault::argument) as gains() does, but looks into no
// map.
Table gains_table(const std::vector<Gains>& jobs);

// Throws Error(Fault::argument) as copy() does.
Table copy_table(const std::vector<Rect>& rects);

}  // namespace lora_mmap::cuda
