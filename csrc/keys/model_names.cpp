#include "keys/model_names.h"

#include <algorithm>

namespace lora_mmap::keys {

std::string flatten(std::string_view path) {
  std::string flat(path);
  std::replace(flat.begin(), flat.end(), '.', '_');
  return flat;
}

ModelNames::ModelNames(std::vector<std::string> names, const std::vector<bool>& alive,
                       std::vector<std::string> aliases)
    : names_(std::move(names)), aliases_(std::move(aliases)) {
  for (uint32_t id = 0; id < names_.size(); ++id)
    if (alive[id]) add(names_[id], id);
  for (uint32_t id = 0; id < std::min(names_.size(), aliases_.size()); ++id)
    if (alive[id] && !aliases_[id].empty() && !exact_.contains(aliases_[id])) add(aliases_[id], id);
}

void ModelNames::add(std::string_view name, uint32_t id) {
  exact_.emplace(name, id);
  flattened_[flatten(name)].push_back(id);
}

std::optional<uint32_t> ModelNames::exact(std::string_view name) const {
  const auto found = exact_.find(name);
  if (found == exact_.end()) return std::nullopt;
  return found->second;
}

std::span<const uint32_t> ModelNames::flattened(std::string_view name_with_underscores) const {
  const auto found = flattened_.find(name_with_underscores);
  if (found == flattened_.end()) return {};
  return found->second;
}

void ModelNames::set_forms(std::vector<uint64_t> rows, std::vector<uint64_t> cols) {
  rows_ = std::move(rows);
  cols_ = std::move(cols);
}

}  // namespace lora_mmap::keys
