// What this process has read and uploaded so far, for reports and tests. Every field only grows; relaxed
// atomics, so a snapshot taken while other threads read is approximate.
#pragma once

#include <atomic>
#include <cstdint>

namespace lora_mmap::safetensors {

struct Counters {
  std::atomic<uint64_t> files_opened{0};
  std::atomic<uint64_t> bytes_read{0};
  std::atomic<uint64_t> headers_parsed{0};
  std::atomic<uint64_t> keys_classified{0};
  std::atomic<uint64_t> bytes_uploaded{0};  // to devices, through pinned rings
  std::atomic<uint64_t> copies_issued{0};   // for them
};

inline Counters& counters() {
  static Counters instance;
  return instance;
}

inline void count(std::atomic<uint64_t>& counter, uint64_t amount = 1) {
  counter.fetch_add(amount, std::memory_order_relaxed);
}

}  // namespace lora_mmap::safetensors
