#include "keys/automaton.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <string>
#include <utility>

#include "base/error.h"

namespace lora_mmap::keys {
namespace {

// What 16 bits can number. Captures that combine in every way would otherwise take all memory.
constexpr size_t kMaxStates = 1 << 16;

}  // namespace

void AutomatonBuilder::add(const Pattern& pattern, Separators separators, uint32_t tag, bool restart) {
  for (const Branch& branch : pattern.branches()) add_branch(branch.tokens, separators, tag, restart);
}

void AutomatonBuilder::add_reversed(const Pattern& pattern, Separators separators, uint32_t tag) {
  for (const Branch& branch : pattern.branches()) {
    std::vector<Token> tokens(branch.tokens.rbegin(), branch.tokens.rend());
    for (Token& token : tokens) std::reverse(token.text.begin(), token.text.end());
    add_branch(tokens, separators, tag, false);
  }
}

void AutomatonBuilder::add_branch(const std::vector<Token>& tokens, Separators separators, uint32_t tag,
                                  bool restart) {
  uint32_t node = 0;
  bool in_segment = false;  // which '_' does not end, so what follows is '.' itself
  for (const Token& token : tokens) {
    if (token.kind != Token::Kind::text) {
      node = follow(node, token.kind == Token::Kind::digits ? kDigit : kSegment, true);
      in_segment = token.kind == Token::Kind::segment;
      continue;
    }
    for (const char c : token.text) {
      const bool either = c == '.' && separators == Separators::either && !std::exchange(in_segment, false);
      node = follow(node, either ? kEitherSeparator : static_cast<unsigned char>(c), false);
    }
  }
  nodes_[node].tags.push_back(tag);
  nodes_[node].restart |= restart;
}

// The node after `label`, shared with every earlier branch that took the same way.
uint32_t AutomatonBuilder::follow(uint32_t node, Label label, bool loops) {
  for (const Edge& edge : nodes_[node].edges)
    if (edge.label == label) return edge.target;
  const auto target = static_cast<uint32_t>(nodes_.size());
  nodes_.emplace_back();
  if (loops) nodes_[target].loop = label;
  nodes_[node].edges.push_back({label, target});
  return target;
}

bool AutomatonBuilder::matches(Label label, unsigned char byte) {
  switch (label) {
    case kEitherSeparator:
      return byte == '.' || byte == '_';
    case kDigit:
      return is_digit(static_cast<char>(byte));
    case kSegment:
      return byte != '.';
    default:
      return label == byte;
  }
}

// Bytes that no label tells apart share a class, so the table stays narrow.
uint32_t AutomatonBuilder::byte_classes(std::array<uint8_t, 256>& classes,
                                        std::vector<std::vector<uint8_t>>& classes_of_label) const {
  std::vector<bool> used(kLabels, false);
  for (const Node& node : nodes_)
    for (const Edge& edge : node.edges) used[edge.label] = true;
  std::map<std::vector<Label>, uint8_t> seen;
  classes_of_label.assign(kLabels, {});
  for (unsigned byte = 0; byte < 256; ++byte) {
    std::vector<Label> labels;  // that the byte belongs to: itself and the sets
    for (const Label label : {static_cast<Label>(byte), kEitherSeparator, kDigit, kSegment})
      if (used[label] && matches(label, static_cast<unsigned char>(byte))) labels.push_back(label);
    const auto [entry, fresh] = seen.emplace(std::move(labels), static_cast<uint8_t>(seen.size()));
    classes[byte] = entry->second;
    if (!fresh) continue;
    for (const Label label : entry->first) classes_of_label[label].push_back(entry->second);
  }
  return static_cast<uint32_t>(seen.size());
}

// Subset construction: one state per set of trie nodes that the bytes read so far may have led to.
class AutomatonBuilder::Subsets {
 public:
  Subsets(const AutomatonBuilder& builder, Automaton& automaton)
      : nodes_(builder.nodes_), automaton_(automaton) {
    automaton_.n_classes_ = builder.byte_classes(automaton_.classes_, classes_of_label_);
    reached_.resize(automaton_.n_classes_);
    state_of({});   // Automaton::kDead
    state_of({0});  // Automaton::kStart
    for (size_t state = 0; state < subsets_.size(); ++state) expand(*subsets_[state]);
    settle();
  }

 private:
  using NodeSet = std::vector<uint32_t>;

  static void sort_unique(std::vector<uint32_t>& values) {
    std::sort(values.begin(), values.end());
    values.erase(std::unique(values.begin(), values.end()), values.end());
  }

  Automaton::State state_of(NodeSet nodes) {
    sort_unique(nodes);
    const auto [entry, fresh] =
        ids_.emplace(std::move(nodes), static_cast<Automaton::State>(subsets_.size()));
    if (fresh) subsets_.push_back(&entry->first);
    if (subsets_.size() > kMaxStates)
      throw Error(Fault::pattern, "[register_family] the tables take more than " +
                                      std::to_string(kMaxStates) +
                                      " states: too many captures stand in the same places");
    return entry->second;
  }

  void expand(const NodeSet& subset) {
    for (NodeSet& nodes : reached_) nodes.clear();
    std::vector<uint32_t> tags;
    for (const uint32_t id : subset) {
      const Node& node = nodes_[id];
      tags.insert(tags.end(), node.tags.begin(), node.tags.end());
      if (node.loop != kLabels) reach(node.loop, id);
      for (const Edge& edge : node.edges) {
        reach(edge.label, edge.target);
        if (nodes_[edge.target].restart) reach(edge.label, 0);
      }
    }
    sort_unique(tags);
    tags_.push_back(std::move(tags));
    for (const NodeSet& nodes : reached_) next_.push_back(nodes.empty() ? Automaton::kDead : state_of(nodes));
  }

  // Gives the states their final numbers: those without tags first, in the order in which they were found.
  void settle() {
    std::vector<Automaton::State> order(tags_.size());
    std::iota(order.begin(), order.end(), 0);
    const auto tagged = std::stable_partition(order.begin(), order.end(),
                                              [&](Automaton::State s) { return tags_[s].empty(); });
    std::vector<uint16_t> number(order.size());
    for (size_t i = 0; i < order.size(); ++i) number[order[i]] = static_cast<uint16_t>(i);
    automaton_.first_tagged_ = static_cast<Automaton::State>(tagged - order.begin());
    automaton_.next_.reserve(next_.size());
    for (const Automaton::State state : order)
      for (size_t c = 0; c < reached_.size(); ++c)
        automaton_.next_.push_back(number[next_[state * reached_.size() + c]]);
    automaton_.tag_begin_.push_back(0);
    for (auto state = tagged; state != order.end(); ++state) {
      automaton_.tags_.insert(automaton_.tags_.end(), tags_[*state].begin(), tags_[*state].end());
      automaton_.tag_begin_.push_back(static_cast<uint32_t>(automaton_.tags_.size()));
    }
  }

  void reach(Label label, uint32_t node) {
    for (const uint8_t c : classes_of_label_[label]) reached_[c].push_back(node);
  }

  const std::vector<Node>& nodes_;
  Automaton& automaton_;
  std::vector<std::vector<uint8_t>> classes_of_label_;
  std::map<NodeSet, Automaton::State> ids_;
  std::vector<const NodeSet*> subsets_;  // keys of ids_, in order of their states
  std::vector<NodeSet> reached_;         // by byte class
  std::vector<Automaton::State> next_;   // [state][class], by the numbers of subsets_
  std::vector<std::vector<uint32_t>> tags_;
};

Automaton AutomatonBuilder::compile() const {
  Automaton automaton;
  Subsets(*this, automaton);
  return automaton;
}

}  // namespace lora_mmap::keys
