// All key tables compiled: what an adapter key ends in (its role), which prefixes it may begin with, and
// which family rules its module path fits. Immutable after construction; any number of threads may classify
// with it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "keys/automaton.h"
#include "keys/pattern.h"

namespace lora_mmap::keys {

// What a plain low-rank pair is made of; everything else is some other algorithm's.
enum class Role : uint8_t { down, up, alpha, other };

struct Suffix {
  Pattern pattern;
  Role role;
  uint32_t keep = 0;  // characters at its beginning that stay with the stem
};

// What besides its paths an alternative asks for. Those that ask for more go before the others, and before
// names.
enum class Mark : uint8_t { file, model, none };

// One way to write a rule's path in a model. All targets of one alternative must exist for it to apply. One
// with `beside` holds for models that have a module of that name, one with `infix` for tensors that carry it.
struct Alternative {
  std::vector<Template> paths;
  std::string beside;
  std::string infix;
  bool is_whole = false;  // one path, and the weight there is the same matrix

  Mark mark() const { return !infix.empty() ? Mark::file : !beside.empty() ? Mark::model : Mark::none; }
};

struct Rule {
  Pattern pattern;
  std::vector<Alternative> alternatives;
  bool is_marked = false;  // some alternative has a mark; the grammar fills it in
};

// Where a module path may begin inside a key.
struct Start {
  uint32_t offset;
  int32_t prefix;  // index into the prefix table; -1 at the beginning of the key
};

struct KeyMatch {
  int32_t suffix = -1;     // index into the suffix table; -1: no known suffix, the rest is meaningless
  std::string_view stem;   // the key without its suffix and without a '_' that some trainers leave at the end
  std::string_view infix;  // what the suffix captured, e.g. a PEFT adapter name
  std::vector<Start> starts;               // ascending; the first is {0, -1}
  std::vector<uint32_t> rules;             // those the stem fits from one of the starts, ascending
  std::vector<std::string_view> captured;  // kept for its memory
};

class Grammar {
 public:
  // Throws Error(Fault::pattern) for two suffixes or prefixes that are the same text, and for tables too
  // large to compile.
  Grammar(std::vector<Suffix> suffixes, std::vector<Pattern> prefixes, std::vector<Rule> rules);

  // Every byte of the key is looked at once: the suffix from the end, the stem from the beginning. The two
  // halves may be called apart: keys that share a stem need walk_stem once.
  void classify(std::string_view key, KeyMatch& match) const;
  bool find_suffix(std::string_view key, KeyMatch& match) const;
  void walk_stem(KeyMatch& match) const;

  Role role(uint32_t suffix) const { return suffixes_[suffix].role; }

  // True when `path` (a stem without its prefix) fits rule `rule`; `values` receives the captures.
  bool captures(uint32_t rule, std::string_view path, std::vector<std::string_view>& values) const {
    return rules_[rule].pattern.match(path, Separators::either, values);
  }

  const Rule& rule(uint32_t index) const { return rules_[index]; }

  // Every two rules that some path fits both, each pair once in ascending order.
  std::vector<std::pair<uint32_t, uint32_t>> overlaps() const;

  size_t states() const { return suffix_.states() + stem_.states(); }
  size_t nbytes() const { return suffix_.nbytes() + stem_.nbytes(); }

 private:
  std::vector<Suffix> suffixes_;
  std::vector<Rule> rules_;
  uint32_t n_prefixes_;
  Automaton suffix_;  // over reversed keys
  Automaton stem_;    // tags below n_prefixes_ are prefixes, the others rules
};

}  // namespace lora_mmap::keys
