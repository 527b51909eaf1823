// A deterministic automaton over bytes that recognises any number of patterns at once: one table look-up per
// byte, whatever the number of patterns. Immutable once compiled, so any number of threads may run it.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "keys/pattern.h"

namespace lora_mmap::keys {

class Automaton {
 public:
  using State = uint32_t;
  static constexpr State kDead = 0;
  static constexpr State kStart = 1;

  State next(State state, char byte) const {
    return next_[state * n_classes_ + classes_[static_cast<unsigned char>(byte)]];
  }

  // Tags of all patterns that end in `state`, in ascending order.
  std::span<const uint32_t> tags(State state) const {
    if (state < first_tagged_) return {};
    const uint32_t* begin = &tag_begin_[state - first_tagged_];
    return {tags_.data() + begin[0], begin[1] - begin[0]};
  }

  size_t states() const { return first_tagged_ + tag_begin_.size() - 1; }
  size_t nbytes() const { return next_.size() * sizeof(next_[0]); }

 private:
  friend class AutomatonBuilder;
  // A walk reads `next_` once a byte, so it is kept narrow; states with tags come last, so that most bytes
  // read nothing else.
  std::array<uint8_t, 256> classes_{};
  uint32_t n_classes_ = 0;
  State first_tagged_ = 0;
  std::vector<uint16_t> next_;       // [state][class]
  std::vector<uint32_t> tag_begin_;  // [state - first_tagged_], and the end of the last
  std::vector<uint32_t> tags_;
};

// Collects patterns into one trie of byte sets, then makes it deterministic by subset construction.
class AutomatonBuilder {
 public:
  AutomatonBuilder() : nodes_(1) {}

  // `restart`: after this pattern, any pattern may begin again (prefixes nest).
  void add(const Pattern& pattern, Separators separators, uint32_t tag, bool restart = false);

  // The same for keys read from their end to their beginning.
  void add_reversed(const Pattern& pattern, Separators separators, uint32_t tag);

  // Throws Error(Fault::pattern) for patterns that take too many states together.
  Automaton compile() const;

 private:
  class Subsets;
  using Label = uint16_t;  // a byte, or one of the sets below
  static constexpr Label kEitherSeparator = 256, kDigit = 257, kSegment = 258, kLabels = 259;

  struct Edge {
    Label label;
    uint32_t target;
  };
  struct Node {
    std::vector<Edge> edges;
    Label loop = kLabels;  // the set this node stays on, if any
    bool restart = false;
    std::vector<uint32_t> tags;
  };

  void add_branch(const std::vector<Token>& tokens, Separators separators, uint32_t tag, bool restart);
  uint32_t follow(uint32_t node, Label label, bool loops);
  static bool matches(Label label, unsigned char byte);
  uint32_t byte_classes(std::array<uint8_t, 256>& classes,
                        std::vector<std::vector<uint8_t>>& classes_of_label) const;

  std::vector<Node> nodes_;
};

}  // namespace lora_mmap::keys
