#include "cuda/pinned_block.h"

#include <algorithm>
#include <atomic>
#include <string>

#include "base/error.h"
#include "cuda/driver/driver.h"

namespace lora_mmap::cuda {
namespace {

constexpr const char* kFunction = "PinnedBlock";

std::atomic<size_t> blocks_nbytes{0};

uint64_t address_of(const PinnedBlock& block) {
  return reinterpret_cast<uint64_t>(block.data());
}

PinnedMemory pin(size_t nbytes) {
  try {
    return PinnedMemory(std::max<size_t>(nbytes, 1));
  } catch (const Error& error) {
    throw Error(error.fault(), std::string(error.what()) + ": " + std::to_string(nbytes) +
                                   " bytes of host memory for copies of weights cannot be pinned");
  }
}

}  // namespace

PinnedBlock::PinnedBlock(Device& device, size_t nbytes) : device_(device) {
  const CurrentContext current = device.enter(kFunction);
  memory_ = pin(nbytes);
  PinnedBlocks& all = device.pinned_blocks();
  const std::lock_guard lock(all.mutex_);
  all.blocks_[address_of(*this)] = this;
  blocks_nbytes += memory_.nbytes();
}

PinnedBlock::~PinnedBlock() {
  if (!loaded_driver()) {
    memory_.abandon();
    return;
  }
  PinnedBlocks& all = device_.pinned_blocks();
  {
    const std::lock_guard lock(all.mutex_);
    all.blocks_.erase(address_of(*this));
  }
  blocks_nbytes -= memory_.nbytes();
  try {
    const CurrentContext current = device_.enter(kFunction);
    for (const Event& use : uses_) use.wait();
    uses_.clear();
    lost_ ? memory_.abandon() : memory_.free();
  } catch (...) {
    memory_.abandon();
    for (Event& use : uses_) use.abandon();
  }
}

size_t PinnedBlock::total_nbytes() noexcept {
  return blocks_nbytes.load();
}

std::vector<PinnedBlock*> PinnedBlocks::at(const std::vector<uint64_t>& addresses) const {
  std::vector<PinnedBlock*> found;
  for (const uint64_t address : addresses) {
    const auto after = blocks_.upper_bound(address);
    if (after == blocks_.begin()) continue;
    PinnedBlock* const block = std::prev(after)->second;
    if (address < address_of(*block) + block->nbytes()) found.push_back(block);
  }
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

void PinnedBlocks::used_on(CUstream stream, const std::vector<uint64_t>& addresses) {
  const std::lock_guard lock(mutex_);
  if (blocks_.empty()) return;
  try {
    for (PinnedBlock* block : at(addresses)) {
      std::erase_if(block->uses_, [](const Event& use) { return use.ready(); });
      block->uses_.emplace_back().record(stream);
    }
  } catch (...) {
    if (driver().cuStreamSynchronize.result(stream) != CUDA_SUCCESS)
      for (const auto& [begin, block] : blocks_) block->lost_ = true;
    throw;
  }
}

}  // namespace lora_mmap::cuda
