// An index that counts two levels through: `{i*3+j+1}` in a pattern is three for each i, then j (below
// three), then one. Without a second counter (`{i*3+2}`) nothing may be left over.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace lora_mmap::keys {

struct Counting {
  size_t radix = 0;
  size_t offset = 0;
  bool has_low = false;

  // The counters that an index stands for; false for one that is none of theirs. The views are static.
  bool split(std::string_view index, std::string_view& high, std::string_view& low) const;

  // The index that the counters stand for, or nothing: `low` has to be below the radix.
  std::optional<size_t> join(std::string_view high, std::string_view low) const;
};

// What stands between the braces; the names are views into it, `low` is empty where there is one counter
// only.
struct CountingText {
  std::string_view high, low;
  Counting counting;

  // Nothing where `body` is no such formula.
  static std::optional<CountingText> parse(std::string_view body);
};

}  // namespace lora_mmap::keys
