#include "slow_grammar.h"

#include <algorithm>
#include <limits>
#include <set>

namespace lora_mmap::fuzz {
namespace {

constexpr int32_t kNotReached = std::numeric_limits<int32_t>::max();

bool same(char pattern, char text, keys::Separators separators) {
  return pattern == text || (separators == keys::Separators::either && pattern == '.' && text == '_');
}

bool same(std::string_view pattern, std::string_view text, keys::Separators separators) {
  return std::equal(pattern.begin(), pattern.end(), text.begin(), text.end(),
                    [separators](char p, char t) { return same(p, t, separators); });
}

// Where the optional part that `pattern` begins with ends; braces in it may hold brackets.
size_t closing_bracket(std::string_view pattern) {
  size_t at = 1;
  while (pattern[at] != ']') at = pattern[at] == '{' ? pattern.find('}', at) + 1 : at + 1;
  return at;
}

class Reader {
 public:
  Reader(std::string_view pattern, keys::Separators separators, std::optional<std::string_view> first)
      : separators_(separators), wanted_(first) {
    const size_t brace = pattern.find('{');
    if (brace != pattern.npos) first_name_ = name_of(pattern.substr(brace));
  }

  bool read(std::string_view pattern, std::string_view text) {
    while (!pattern.empty() && pattern[0] != '{' && pattern[0] != '[') {
      if (text.empty() || !same(pattern[0], text[0], separators_)) return false;
      pattern.remove_prefix(1);
      text.remove_prefix(1);
    }
    if (pattern.empty()) return text.empty() && (!wanted_ || *wanted_ == first_);
    return pattern[0] == '[' ? read_optional(pattern, text) : read_capture(pattern, text);
  }

 private:
  static std::string_view name_of(std::string_view capture) {
    return capture.substr(1, capture.find_first_of(":}") - 1);
  }

  bool read_optional(std::string_view pattern, std::string_view text) {
    const size_t close = closing_bracket(pattern);
    const std::string_view rest = pattern.substr(close + 1);
    return read(rest, text) || read(std::string(pattern.substr(1, close - 1)) + std::string(rest), text);
  }

  bool read_capture(std::string_view pattern, std::string_view text) {
    const size_t close = pattern.find('}');
    const std::string_view name = name_of(pattern), rest = pattern.substr(close + 1);
    if (1 + name.size() == close) return read_index(name, rest, text);
    const std::string_view kind = pattern.substr(name.size() + 2, close - name.size() - 2);
    if (kind == "*") return read_segment(name, rest, text);
    return read_choice(name, kind, rest, text);
  }

  bool read_index(std::string_view name, std::string_view rest, std::string_view text) {
    for (size_t n = 1; n <= text.size() && text[n - 1] >= '0' && text[n - 1] <= '9'; ++n)
      if (read_value(name, text.substr(0, n), rest, text)) return true;
    return false;
  }

  // There is no shorter reading: '.' follows it, or nothing.
  bool read_segment(std::string_view name, std::string_view rest, std::string_view text) {
    const std::string_view value = text.substr(0, text.find('.'));
    return !value.empty() && read_value(name, value, rest, text);
  }

  bool read_choice(std::string_view name, std::string_view options, std::string_view rest,
                   std::string_view text) {
    for (;;) {
      const size_t bar = options.find('|');
      const std::string_view option = options.substr(0, bar);
      const std::string_view value = text.substr(0, option.size());
      if (same(option, value, separators_) && read_value(name, value, rest, text)) return true;
      if (bar == options.npos) return false;
      options.remove_prefix(bar + 1);
    }
  }

  bool read_value(std::string_view name, std::string_view value, std::string_view rest,
                  std::string_view text) {
    if (name == first_name_) first_ = value;
    if (read(rest, text.substr(value.size()))) return true;
    if (name == first_name_) first_ = {};
    return false;
  }

  keys::Separators separators_;
  std::optional<std::string_view> wanted_;
  std::string_view first_name_;
  std::string_view first_;
};

}  // namespace

bool reads_as(std::string_view pattern, std::string_view text, keys::Separators separators,
              std::optional<std::string_view> first) {
  return Reader(pattern, separators, first).read(pattern, text);
}

SlowPattern::SlowPattern(std::string pattern, keys::Separators separators)
    : pattern_(std::move(pattern)), separators_(separators) {
  head_ = pattern_.substr(0, pattern_.find_first_of("{["));
  tail_ = pattern_.substr(pattern_.find_last_of("}]") + 1);  // all of it where there is none
}

bool SlowPattern::may_begin(std::string_view text) const {
  return text.size() >= head_.size() && same(head_, text.substr(0, head_.size()), separators_);
}

bool SlowPattern::may_end(std::string_view text) const {
  return text.size() >= tail_.size() && same(tail_, text.substr(text.size() - tail_.size()), separators_);
}

bool SlowGrammar::find_suffix(std::string_view key, keys::KeyMatch& match) const {
  std::vector<uint32_t> candidates;
  for (uint32_t i = 0; i < suffixes.size(); ++i)
    if (suffixes[i].may_end(key)) candidates.push_back(i);
  for (size_t at = 1; at < key.size(); ++at) {
    for (const uint32_t suffix : candidates) {
      if (!suffixes[suffix].reads(key.substr(at))) continue;
      match.suffix = static_cast<int32_t>(suffix);
      match.stem = key.substr(0, at + keep[suffix]);
      if (match.stem.size() > 1 && match.stem.back() == '_') match.stem.remove_suffix(1);
      return true;
    }
  }
  match.suffix = -1;
  return false;
}

void SlowGrammar::walk_stem(keys::KeyMatch& match) const {
  const std::string_view stem = match.stem;
  std::vector<int32_t> prefix_before(stem.size() + 1, kNotReached);  // the lowest of those that end there
  prefix_before[0] = -1;
  std::set<uint32_t> fitting;
  match.starts.clear();
  for (uint32_t at = 0; at < stem.size(); ++at) {
    if (prefix_before[at] == kNotReached) continue;
    const std::string_view rest = stem.substr(at);
    if (match.starts.size() < kMaxStarts) match.starts.push_back({at, prefix_before[at]});
    for (uint32_t i = 0; i < prefixes.size(); ++i) {
      if (!prefixes[i].may_begin(rest)) continue;
      for (size_t n = 1; n <= rest.size(); ++n)
        if (prefixes[i].reads(rest.substr(0, n)))
          prefix_before[at + n] = std::min(prefix_before[at + n], static_cast<int32_t>(i));
    }
    for (uint32_t i = 0; i < rules.size(); ++i)
      if (rules[i].reads(rest)) fitting.insert(i);
  }
  match.rules.assign(fitting.begin(), fitting.end());
}

}  // namespace lora_mmap::fuzz
