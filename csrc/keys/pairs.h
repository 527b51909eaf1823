// Plain low-rank pairs among the groups of a file. Whatever is not exactly that is left for the caller to
// explain.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "base/dtype.h"
#include "keys/groups.h"
#include "keys/model_names.h"

namespace lora_mmap::keys {

struct TensorForm {
  DType dtype;
  std::span<const uint64_t> shape;
};

using FormOf = std::function<TensorForm(uint32_t tensor)>;

// Tensor indices, and the matrix they make: up [rows, rank] times down [rank, cols], convolutions flattened.
struct PlainPair {
  uint32_t down;
  uint32_t up;
  int32_t alpha;  // -1: none
  uint64_t rows;
  uint64_t cols;
  uint64_t rank;
  uint64_t kernel;  // kernel_of() the down factor
};

// The pair that `group` is made of, if it holds one down factor, one up factor, at most one alpha and nothing
// else, both factors are floats of 2 to 5 dimensions and their ranks agree and are not 0.
std::optional<PlainPair> plain_pair(const Group& group, const Grammar& grammar, const FormOf& form);

}  // namespace lora_mmap::keys
