#include "keys/model_names.h"

#include <algorithm>

namespace lora_mmap::keys {

std::string flatten(std::string_view path) {
  std::string flat(path);
  std::replace(flat.begin(), flat.end(), '.', '_');
  return flat;
}

// Extents of 2^21 and more are no kernel's; what becomes of them only has to be the same for the same shape.
uint64_t kernel_of(std::span<const uint64_t> shape) {
  uint64_t kernel = 0;
  for (size_t dim = 2; dim < shape.size(); ++dim) kernel = kernel << 21 | shape[dim];
  return kernel;
}

namespace {

void add_once(std::vector<uint32_t>& ids, uint32_t id) {
  if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
}

}  // namespace

ModelNames::ModelNames(std::vector<std::string> names, const std::vector<bool>& alive,
                       std::vector<std::pair<uint32_t, std::string>> aliases)
    : size_(names.size()) {
  exact_.reserve(names.size());
  flattened_.reserve(names.size());
  for (uint32_t id = 0; id < names.size(); ++id) {
    if (!alive[id]) continue;
    flattened_[flatten(names[id])].push_back(id);
    exact_[std::move(names[id])].push_back(id);
  }
  Index exact, flattened;
  for (const auto& [id, alias] : aliases) {
    if (!alive[id]) continue;
    if (!exact_.contains(alias)) add_once(exact[alias], id);
    if (std::string flat = flatten(alias); !flattened_.contains(flat))
      add_once(flattened[std::move(flat)], id);
  }
  exact_.merge(exact);
  flattened_.merge(flattened);
}

std::span<const uint32_t> ModelNames::find(const Index& index, std::string_view name) {
  const auto found = index.find(name);
  if (found == index.end()) return {};
  return found->second;
}

std::span<const uint32_t> ModelNames::exact(std::string_view name) const {
  return find(exact_, name);
}

std::span<const uint32_t> ModelNames::flattened(std::string_view name_with_underscores) const {
  return find(flattened_, name_with_underscores);
}

}  // namespace lora_mmap::keys
