// The tensors of one adapter file, gathered by the module they belong to. Made once per file and kept with
// it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "keys/grammar.h"

namespace lora_mmap::keys {

struct Member {
  uint32_t tensor;  // index into the names given
  uint32_t suffix;  // index into the suffix table
};

struct Group {
  std::string_view stem;   // the module path as the file writes it, prefixes included
  std::string_view infix;  // two PEFT adapters in one file are two groups
  std::span<const Start> starts;
  std::span<const uint32_t> rules;  // indices into the grammar's rules
  std::span<const Member> members;  // in order of their tensors
};

// Names are views of those given, which must outlive the groups; the spans are views of what lies here. A
// file has tens of thousands of groups of a few entries each: together they take no more allocations than
// one.
struct Groups {
  std::shared_ptr<const Grammar> grammar;
  std::vector<Group> groups;      // in order of first appearance
  std::vector<uint32_t> alphas;   // tensors that are alphas
  std::vector<uint32_t> unknown;  // tensors whose key ends in no known suffix

  Groups() = default;
  Groups(Groups&&) = default;
  Groups& operator=(Groups&&) = default;

 private:
  friend class Grouping;
  std::vector<Start> starts_;
  std::vector<uint32_t> rules_;
  std::vector<Member> members_;
};

Groups classify_all(std::shared_ptr<const Grammar> grammar, const std::vector<std::string_view>& names);

}  // namespace lora_mmap::keys
