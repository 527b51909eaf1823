// Places at which tests make the native core run out of memory.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <optional>
#include <string_view>

namespace lora_mmap {

enum class FaultPoint : uint8_t {
  encode,  // before the memory for a tile's corrections is made sure of
  tile,    // before a tile is begun
  fit,     // before a tile's corrections are brought to memory of their size
};

namespace fault_points {
inline std::array<std::atomic<int64_t>, 3> countdowns{};
}

std::optional<FaultPoint> fault_point_from_name(std::string_view name);

// The `countdown`-th arrival from now on, in any thread, fails; 0 or less: none.
inline void arm_fault(FaultPoint point, int64_t countdown) {
  fault_points::countdowns[static_cast<size_t>(point)].store(countdown, std::memory_order_relaxed);
}

// Whether a test asked for a failure of this arrival.
inline bool fails_at(FaultPoint point) {
  std::atomic<int64_t>& countdown = fault_points::countdowns[static_cast<size_t>(point)];
  return countdown.load(std::memory_order_relaxed) > 0 &&
         countdown.fetch_sub(1, std::memory_order_relaxed) == 1;
}

// Throws std::bad_alloc where it did.
inline void fault_point(FaultPoint point) {
  if (fails_at(point)) throw std::bad_alloc();
}

}  // namespace lora_mmap
