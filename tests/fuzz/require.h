// What a fuzz target holds to be true, whatever the input.
#pragma once

#include <cstdio>
#include <string_view>

namespace lora_mmap::fuzz {

// Says what does not hold and stops, which the fuzzer takes for a crash.
inline void require(bool holds, const char* what, std::string_view about = {}) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s: '%.*s'\n", what, static_cast<int>(about.size()), about.data());
  __builtin_trap();
}

}  // namespace lora_mmap::fuzz
