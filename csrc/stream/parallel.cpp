#include "stream/parallel.h"

#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>
#include <vector>

namespace lora_mmap::stream {

void serial_for(size_t count, const std::function<void(size_t)>& body) {
  for (size_t i = 0; i < count; ++i) body(i);
}

ParallelFor parallel_for(unsigned threads) {
  if (threads <= 1) return serial_for;
  return [threads](size_t count, const std::function<void(size_t)>& body) {
    std::atomic<size_t> next{0};
    const auto work = [&] {
      for (size_t i = next++; i < count; i = next++) body(i);
    };
    std::vector<std::jthread> others;
    try {
      for (size_t i = 1; i < std::min<size_t>(threads, count); ++i) others.emplace_back(work);
    } catch (const std::system_error&) {
      // The system has no more threads to give: those at hand do the work.
    }
    work();
  };
}

}  // namespace lora_mmap::stream
