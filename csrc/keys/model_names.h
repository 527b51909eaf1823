// The canonical module names of one model, found by their exact spelling or with dots written as underscores.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace lora_mmap::keys {

class ModelNames {
 public:
  // Names are identified by their position. Those with `alive[i]` false are known but never found: the module
  // exists and takes no part in the forward pass. `aliases` are further names of some; a module's own name
  // goes before another's alias.
  ModelNames(std::vector<std::string> names, const std::vector<bool>& alive,
             std::vector<std::pair<uint32_t, std::string>> aliases = {});
  ModelNames(const ModelNames&) = delete;
  ModelNames& operator=(const ModelNames&) = delete;

  // More than one where several modules have the alias and none has the name.
  std::span<const uint32_t> exact(std::string_view name) const;

  // Several names may flatten to the same text; all are given.
  std::span<const uint32_t> flattened(std::string_view name_with_underscores) const;

  size_t size() const { return size_; }

  // The weights as matrices, by name id: rows and columns, 0 and 0 for what is none. Not to be called while
  // another thread resolves against these names.
  void set_forms(std::vector<uint64_t> rows, std::vector<uint64_t> cols);
  bool has_form(uint32_t id, uint64_t rows, uint64_t cols) const {
    return id < rows_.size() && rows_[id] == rows && cols_[id] == cols;
  }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };

  using Index = std::unordered_map<std::string, std::vector<uint32_t>, Hash, std::equal_to<>>;

  static std::span<const uint32_t> find(const Index& index, std::string_view name);

  size_t size_ = 0;
  std::vector<uint64_t> rows_, cols_;
  Index exact_, flattened_;
};

// `path` with every '.' written as '_'.
std::string flatten(std::string_view path);

}  // namespace lora_mmap::keys
