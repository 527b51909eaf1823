#include "keys/automaton.h"

#include <algorithm>
#include <map>

namespace lora_mmap::keys {

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
  for (const Token& token : tokens) {
    if (token.kind != Token::Kind::text) {
      node = follow(node, token.kind == Token::Kind::digits ? kDigit : kSegment, true);
      continue;
    }
    for (const char c : token.text) {
      const bool either = c == '.' && separators == Separators::either;
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
  std::map<std::vector<bool>, uint8_t> seen;
  classes_of_label.assign(kLabels, {});
  for (unsigned byte = 0; byte < 256; ++byte) {
    std::vector<bool> signature(kLabels, false);
    for (Label label = 0; label < kLabels; ++label)
      signature[label] = used[label] && matches(label, static_cast<unsigned char>(byte));
    const auto [entry, fresh] = seen.emplace(std::move(signature), static_cast<uint8_t>(seen.size()));
    classes[byte] = entry->second;
    if (!fresh) continue;
    for (Label label = 0; label < kLabels; ++label)
      if (entry->first[label]) classes_of_label[label].push_back(entry->second);
  }
  return static_cast<uint32_t>(seen.size());
}

Automaton AutomatonBuilder::compile() const {
  Automaton automaton;
  std::vector<std::vector<uint8_t>> classes_of_label;
  const uint32_t n_classes = byte_classes(automaton.classes_, classes_of_label);
  automaton.n_classes_ = n_classes;

  std::map<std::vector<uint32_t>, Automaton::State> ids;
  std::vector<const std::vector<uint32_t>*> subsets;
  const auto state_of = [&](std::vector<uint32_t>& nodes) {
    std::sort(nodes.begin(), nodes.end());
    nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
    const auto [entry, fresh] = ids.emplace(nodes, static_cast<Automaton::State>(subsets.size()));
    if (fresh) subsets.push_back(&entry->first);
    return entry->second;
  };
  std::vector<uint32_t> none, root{0};
  state_of(none);
  state_of(root);

  automaton.tag_begin_.push_back(0);
  std::vector<std::vector<uint32_t>> reached(n_classes);
  for (size_t state = 0; state < subsets.size(); ++state) {
    const std::vector<uint32_t>& subset = *subsets[state];
    for (auto& nodes : reached) nodes.clear();
    std::vector<uint32_t> tags;
    for (const uint32_t id : subset) {
      const Node& node = nodes_[id];
      tags.insert(tags.end(), node.tags.begin(), node.tags.end());
      if (node.loop != kLabels)
        for (const uint8_t c : classes_of_label[node.loop]) reached[c].push_back(id);
      for (const Edge& edge : node.edges)
        for (const uint8_t c : classes_of_label[edge.label]) {
          reached[c].push_back(edge.target);
          if (nodes_[edge.target].restart) reached[c].push_back(0);
        }
    }
    std::sort(tags.begin(), tags.end());
    tags.erase(std::unique(tags.begin(), tags.end()), tags.end());
    automaton.tags_.insert(automaton.tags_.end(), tags.begin(), tags.end());
    automaton.tag_begin_.push_back(static_cast<uint32_t>(automaton.tags_.size()));
    for (auto& nodes : reached) automaton.next_.push_back(state_of(nodes));
  }
  return automaton;
}

}  // namespace lora_mmap::keys
