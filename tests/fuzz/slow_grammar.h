// What key tables mean, read from their texts by trying everything: no branches, no automaton. The measure
// that csrc/keys is held to.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "keys/grammar.h"

namespace lora_mmap::fuzz {

// True when the whole of `text` reads as `pattern`, which must be sound. With `first`, only a reading counts
// in which the pattern's first capture is this: empty where an optional part that holds it is left out.
bool reads_as(std::string_view pattern, std::string_view text, keys::Separators separators,
              std::optional<std::string_view> first = {});

class SlowTable {
 public:
  void add(const std::string& pattern);
  const std::string& operator[](size_t index) const { return patterns_[index]; }
  size_t size() const { return patterns_.size(); }

  // Those that may fit a text with this first byte, ascending.
  const std::vector<uint32_t>& candidates(char first) const {
    return by_first_[static_cast<unsigned char>(first)];
  }

 private:
  std::vector<std::string> patterns_;
  std::array<std::vector<uint32_t>, 256> by_first_;
};

// As Grammar's two halves; the infix is not filled in.
struct SlowGrammar {
  SlowTable suffixes, prefixes, rules;

  bool find_suffix(std::string_view key, keys::KeyMatch& match) const;
  void walk_stem(keys::KeyMatch& match) const;
};

}  // namespace lora_mmap::fuzz
