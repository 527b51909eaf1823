// What key tables mean, read from their texts by trying everything: no branches, no automaton. The measure
// that csrc/keys is held to.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "keys/grammar.h"

namespace lora_mmap::fuzz {

constexpr size_t kMaxStarts = 16;  // what csrc/keys/grammar.cpp keeps

// True when the whole of `text` reads as `pattern`, which must be sound. With `first`, only a reading counts
// in which the pattern's first capture is this: empty where an optional part that holds it is left out.
bool reads_as(std::string_view pattern, std::string_view text, keys::Separators separators,
              std::optional<std::string_view> first = {});

// A pattern and the plain text at its ends, which rules most texts out before they are read.
class SlowPattern {
 public:
  SlowPattern(std::string pattern, keys::Separators separators);

  const std::string& pattern() const { return pattern_; }
  bool may_begin(std::string_view text) const;
  bool may_end(std::string_view text) const;
  bool reads(std::string_view text) const {
    return may_begin(text) && may_end(text) && reads_as(pattern_, text, separators_);
  }

 private:
  std::string pattern_, head_, tail_;
  keys::Separators separators_;
};

// As Grammar's two halves; the infix is not filled in.
struct SlowGrammar {
  std::vector<SlowPattern> suffixes, prefixes, rules;
  std::vector<size_t> keep;  // by suffix: characters of it that stay with the stem

  void add_suffix(const std::string& text, size_t kept) {
    suffixes.emplace_back(text, keys::Separators::exact);
    keep.push_back(kept);
  }
  void add_prefix(const std::string& text) { prefixes.emplace_back(text, keys::Separators::exact); }
  void add_rule(const std::string& text) { rules.emplace_back(text, keys::Separators::either); }

  bool find_suffix(std::string_view key, keys::KeyMatch& match) const;
  void walk_stem(keys::KeyMatch& match) const;
};

}  // namespace lora_mmap::fuzz
