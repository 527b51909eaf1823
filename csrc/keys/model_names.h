// The canonical module names of one model, found by their exact spelling or with dots written as underscores.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace lora_mmap::keys {

// A weight or a factor pair as a matrix, convolutions flattened. `kernel` is kernel_of() its shape.
struct MatrixForm {
  uint64_t rows;
  uint64_t cols;
  uint64_t kernel;
};

// The kernel's extents as one number: those of a shape after its first two, 0 where it has no more.
uint64_t kernel_of(std::span<const uint64_t> shape);

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

  // The weights by name id; what is no matrix has no rows. Not to be called while another thread resolves
  // against these names.
  void set_forms(std::vector<MatrixForm> forms) { forms_ = std::move(forms); }

  // A kernel has to be the same where both sides tell it.
  bool has_form(uint32_t id, const MatrixForm& form) const {
    if (id >= forms_.size()) return false;
    const MatrixForm& own = forms_[id];
    return own.rows == form.rows && own.cols == form.cols &&
           (own.kernel == form.kernel || own.kernel == 0 || form.kernel == 0);
  }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };

  using Index = std::unordered_map<std::string, std::vector<uint32_t>, Hash, std::equal_to<>>;

  static std::span<const uint32_t> find(const Index& index, std::string_view name);

  size_t size_ = 0;
  std::vector<MatrixForm> forms_;
  Index exact_, flattened_;
};

// `path` with every '.' written as '_'.
std::string flatten(std::string_view path);

}  // namespace lora_mmap::keys
