#include "safetensors/name_table.h"

#include <bit>
#include <cstring>
#include <random>

namespace lora_mmap::safetensors {
namespace {

uint64_t fold(uint64_t a, uint64_t b) {
  using Product = unsigned __int128;
  const Product product = static_cast<Product>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

struct Seed {
  uint64_t a, b;
};

Seed random_seed() {
  std::random_device device;
  const auto word = [&] { return uint64_t{device()} << 32 | device(); };
  return {word() | 1, word() | 1};
}

uint64_t load_word(const char* bytes, size_t count) {
  uint64_t word = 0;
  std::memcpy(&word, bytes, count);
  return word;
}

}  // namespace

uint64_t hash_name(std::string_view name) {
  static const Seed seed = random_seed();
  const char* at = name.data();
  size_t left = name.size();
  uint64_t hash = seed.a ^ left;
  for (; left >= 16; left -= 16, at += 16)
    hash = fold(load_word(at, 8) ^ seed.b, load_word(at + 8, 8) ^ hash);
  const uint64_t low = load_word(at, left < 8 ? left : 8);
  const uint64_t high = left > 8 ? load_word(at + 8, left - 8) : 0;
  return fold(fold(low ^ seed.b, high ^ hash), seed.a);
}

size_t NameTable::capacity_for(size_t names) {
  constexpr size_t kLeast = 16;
  return std::bit_ceil(2 * names + kLeast);
}

void NameTable::grow() {
  std::vector<Slot> old(slots_.size() * 2);
  old.swap(slots_);
  const size_t mask = slots_.size() - 1;
  for (const Slot& slot : old) {
    if (slot.place == kAbsent) continue;
    size_t i = slot.tag & mask;
    while (slots_[i].place != kAbsent) i = (i + 1) & mask;
    slots_[i] = slot;
  }
}

void NameTable::move_places(std::span<const uint32_t> new_places) {
  for (Slot& slot : slots_)
    if (slot.place != kAbsent) slot.place = new_places[slot.place];
}

}  // namespace lora_mmap::safetensors
