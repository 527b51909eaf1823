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
  Identity last;  // neighbours in a file mostly belong to one module
  uint32_t group = 0;
  for (uint32_t tensor = 0; tensor < names.size(); ++tensor) {
    if (!grammar->find_suffix(names[tensor], match)) {
      result.unknown.push_back(tensor);
      continue;
    }
    const auto suffix = static_cast<uint32_t>(match.suffix);
    if (grammar->role(suffix) == Role::alpha) result.alphas.push_back(tensor);
    const Identity id{match.stem, match.infix};
    if (result.groups.empty() || !(id == last)) {
      const auto [entry, fresh] = ids.emplace(id, static_cast<uint32_t>(result.groups.size()));
      if (fresh) {
        grammar->walk_stem(match);
        result.groups.push_back({id.stem, id.infix, match.starts, match.rules, {}});
        result.groups.back().members.reserve(4);
      }
      last = id;
      group = entry->second;
    }
    result.groups[group].members.push_back({tensor, suffix});
  }
  safetensors::count(safetensors::counters().keys_classified, names.size());
  result.grammar = std::move(grammar);
  return result;
}

}  // namespace lora_mmap::keys
