// Pinned host memory that is kept: copies of weights as they were. Kernels read and write it where it is,
// over unified addressing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

#include "cuda/driver/device.h"
#include "cuda/driver/handles.h"

namespace lora_mmap::cuda {

// A block for work on one device. Safe to share between threads, but for the destructor.
class PinnedBlock {
 public:
  // Enters the device's context. Throws Error(Fault::cuda) where so much memory cannot be pinned.
  PinnedBlock(Device& device, size_t nbytes);

  // Blocks until the device is done with every launch that was told to use the block. Where that cannot be
  // waited for the memory stays pinned for good.
  ~PinnedBlock();
  PinnedBlock(const PinnedBlock&) = delete;
  PinnedBlock& operator=(const PinnedBlock&) = delete;

  std::byte* data() const { return memory_.data(); }
  size_t nbytes() const { return memory_.nbytes(); }

  static size_t total_nbytes() noexcept;  // of all blocks there are

 private:
  friend class PinnedBlocks;
  Device& device_;
  PinnedMemory memory_;
  std::vector<Event> uses_;  // guarded by the mutex of the device's blocks
  bool lost_ = false;        // there is a use whose end cannot be known; likewise guarded
};

// The blocks of one device. Thread-safe.
class PinnedBlocks {
 public:
  // Says that `stream` has been told to use what lies at these addresses; those outside of all blocks are
  // none of ours. Needs the device's context. Throws Error(Fault::cuda) where no event can be recorded; the
  // stream has then ended, or the blocks stay pinned for good.
  void used_on(CUstream stream, const std::vector<uint64_t>& addresses);

 private:
  friend class PinnedBlock;
  std::vector<PinnedBlock*> at(const std::vector<uint64_t>& addresses) const;  // each once

  std::mutex mutex_;
  std::map<uint64_t, PinnedBlock*> blocks_;  // by where they begin
};

}  // namespace lora_mmap::cuda
