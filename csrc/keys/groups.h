// The tensors of one adapter file, gathered by the module they belong to. Made once per file and kept with
// it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
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
  std::vector<Start> starts;
  std::vector<uint32_t> rules;  // indices into the grammar's rules
  std::vector<Member> members;
};

// Views point into the names, which must outlive the groups.
struct Groups {
  std::shared_ptr<const Grammar> grammar;
  std::vector<Group> groups;      // in order of first appearance
  std::vector<uint32_t> alphas;   // tensors that are alphas
  std::vector<uint32_t> unknown;  // tensors whose key ends in no known suffix
};

Groups classify_all(std::shared_ptr<const Grammar> grammar, const std::vector<std::string_view>& names);

}  // namespace lora_mmap::keys
