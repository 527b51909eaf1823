// The pattern language of the key tables.
//
//   text          itself; in a path pattern '.' also matches '_', because trainers flatten module paths
//                 (not right after a segment, which may hold '_' itself)
//   {i}           a decimal index, captured
//   {i*3+j+1}     an index that counts two levels through (keys/counting.h): i and j are captured; in rules
//                 only, where an index that no counters stand for leads to no module
//   {x:*}         one segment: a non-empty run without '.', captured
//   {x:a|b|c}     one of the listed texts, captured
//   [text]        text or nothing (may hold captures, does not nest)
//
// A pattern is a finite set of branches: the choices and optional parts multiplied out. Each branch is a
// plain run of tokens in which every capture ends where the next token begins, so matching never backtracks.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "keys/counting.h"

namespace lora_mmap::keys {

enum class Separators {
  exact,   // '.' is '.'
  either,  // '.' is '.' or '_'
};

struct Token {
  enum class Kind { text, digits, segment };
  Kind kind;
  std::string text;  // of a text token
  size_t capture;    // of a digits or segment token: index into Pattern::captures()
  std::optional<Counting> counting = std::nullopt;  // of digits; its second counter is the next capture
};

struct Branch {
  std::vector<Token> tokens;
  std::vector<std::pair<size_t, std::string>> chosen;  // captures whose value the branch itself fixes
};

class Pattern {
 public:
  // Throws Error(Fault::pattern) naming the pattern and what is wrong with it.
  static Pattern parse(std::string_view text);

  const std::string& text() const { return text_; }
  const std::vector<std::string>& captures() const { return captures_; }
  const std::vector<Branch>& branches() const { return branches_; }
  bool has_counting() const;

  // True when the whole of `key` matches; `values` then holds one view per capture, into `key` or into this
  // pattern.
  bool match(std::string_view key, Separators separators, std::vector<std::string_view>& values) const;

 private:
  std::string text_;
  std::vector<std::string> captures_;
  std::vector<Branch> branches_;
};

// The other side of a rule: a path in which {x} stands for a capture of the rule's pattern.
class Template {
 public:
  // Throws Error(Fault::pattern) for a capture that `pattern` does not have.
  static Template parse(std::string_view text, const Pattern& pattern);

  // False where no path follows from the captures: counters that no index stands for.
  bool expand(const std::vector<std::string_view>& values, std::string& path) const;

 private:
  struct Piece {
    std::string text;
    size_t capture;  // kText for plain text
    size_t low;      // of a piece with `counting`: its second counter, if any
    std::optional<Counting> counting;
  };
  static constexpr size_t kText = static_cast<size_t>(-1);
  std::vector<Piece> pieces_;
};

inline bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

}  // namespace lora_mmap::keys
