// What the workers of one call may take for themselves.
#pragma once

#include <algorithm>
#include <cstddef>

namespace lora_mmap {

constexpr size_t kScratchNbytes = size_t{16} << 20;  // of all workers together
constexpr int kMostWorkers = 192;                    // leaves each 85 KiB: enough for the smallest block

inline int workers(int threads) {
  return std::min(threads, kMostWorkers);
}

inline size_t scratch_of_each(int threads, size_t scratch_nbytes) {
  return std::min(scratch_nbytes, kScratchNbytes) / static_cast<size_t>(workers(threads));
}

}  // namespace lora_mmap
