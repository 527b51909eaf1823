// From names to their places in a list, in one flat allocation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

namespace lora_mmap::safetensors {

// Seeded per process, so that a file cannot be crafted to make its names collide.
uint64_t hash_name(std::string_view name);

// Open addressing with linear probing, at most half full. The names themselves stay in the caller's list:
// every call takes `name_at`, a function from a place to its name. Not thread-safe while it grows; lookups
// are.
class NameTable {
 public:
  static constexpr uint32_t kAbsent = std::numeric_limits<uint32_t>::max();

  explicit NameTable(size_t expected_names = 0) : slots_(capacity_for(expected_names)) {}

  // Returns the place of `name`, or gives it `place` (which must not be kAbsent) and returns that.
  template <class NameAt>
  uint32_t find_or_insert(std::string_view name, uint32_t place, NameAt name_at) {
    if (2 * (used_ + 1) > slots_.size()) grow();
    const uint32_t tag = static_cast<uint32_t>(hash_name(name));
    Slot& slot = slots_[probe(name, tag, name_at)];
    if (slot.place == kAbsent) {
      slot = {tag, place};
      ++used_;
    }
    return slot.place;
  }

  template <class NameAt>
  uint32_t find(std::string_view name, NameAt name_at) const {
    return slots_[probe(name, static_cast<uint32_t>(hash_name(name)), name_at)].place;
  }

  // Says that what was at place i is now at new_places[i].
  void move_places(std::span<const uint32_t> new_places);

 private:
  struct Slot {
    uint32_t tag = 0;  // low half of the hash: spares most string comparisons, and all of them when growing
    uint32_t place = kAbsent;
  };

  static size_t capacity_for(size_t names);
  void grow();

  template <class NameAt>
  size_t probe(std::string_view name, uint32_t tag, NameAt name_at) const {
    const size_t mask = slots_.size() - 1;
    for (size_t i = tag & mask;; i = (i + 1) & mask) {
      const Slot& slot = slots_[i];
      if (slot.place == kAbsent || (slot.tag == tag && name_at(slot.place) == name)) return i;
    }
  }

  std::vector<Slot> slots_;  // a power of two
  size_t used_ = 0;
};

}  // namespace lora_mmap::safetensors
