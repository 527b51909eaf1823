#include "keys/groups.h"

#include <unordered_map>

#include "safetensors/counters.h"

namespace lora_mmap::keys {
namespace {

struct Identity {
  std::string_view stem;
  std::string_view infix;
  bool operator==(const Identity&) const = default;
};

struct IdentityHash {
  size_t operator()(const Identity& id) const {
    const std::hash<std::string_view> hash;
    return hash(id.stem) * 31 + hash(id.infix);
  }
};

}  // namespace

Groups classify_all(std::shared_ptr<const Grammar> grammar, const std::vector<std::string_view>& names) {
  Groups result;
  std::unordered_map<Identity, uint32_t, IdentityHash> ids;
  ids.reserve(names.size());
  KeyMatch match;
  for (uint32_t tensor = 0; tensor < names.size(); ++tensor) {
    grammar->classify(names[tensor], match);
    if (match.suffix < 0) {
      result.unknown.push_back(tensor);
      continue;
    }
    const Identity id{match.stem, match.infix};
    const auto [entry, fresh] = ids.emplace(id, static_cast<uint32_t>(result.groups.size()));
    if (fresh) {
      result.groups.push_back({id.stem, id.infix, match.starts, match.rules, {}});
      result.groups.back().members.reserve(4);
    }
    result.groups[entry->second].members.push_back({tensor, static_cast<uint32_t>(match.suffix)});
  }
  safetensors::count(safetensors::counters().keys_classified, names.size());
  result.grammar = std::move(grammar);
  return result;
}

}  // namespace lora_mmap::keys
