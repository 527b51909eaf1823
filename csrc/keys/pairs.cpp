#include "keys/pairs.h"

#include <array>

namespace lora_mmap::keys {
namespace {

constexpr size_t kMinDims = 2, kMaxDims = 5;

bool is_factor(const TensorForm& form) {
  return is_factor_dtype(form.dtype) && form.shape.size() >= kMinDims && form.shape.size() <= kMaxDims;
}

// The header's own check bounds the whole product, zeros aside, and a zero makes every product here zero.
uint64_t flattened(std::span<const uint64_t> shape) {
  uint64_t product = 1;
  for (const uint64_t dim : shape.subspan(1)) product *= dim;
  return product;
}

}  // namespace

std::optional<PlainPair> plain_pair(const Group& group, const Grammar& grammar, const FormOf& form) {
  std::array<int32_t, 3> tensors{-1, -1, -1};
  for (const Member& member : group.members) {
    const Role role = grammar.role(member.suffix);
    if (role == Role::other) return std::nullopt;
    int32_t& slot = tensors[static_cast<size_t>(role)];
    if (slot >= 0) return std::nullopt;
    slot = static_cast<int32_t>(member.tensor);
  }
  const auto [down, up, alpha] = tensors;
  if (down < 0 || up < 0) return std::nullopt;
  const TensorForm a = form(static_cast<uint32_t>(down)), b = form(static_cast<uint32_t>(up));
  if (!is_factor(a) || !is_factor(b)) return std::nullopt;
  const uint64_t rank = a.shape[0];
  if (rank == 0 || flattened(b.shape) != rank) return std::nullopt;
  return PlainPair{
      static_cast<uint32_t>(down), static_cast<uint32_t>(up), alpha, b.shape[0], flattened(a.shape), rank,
      kernel_of(a.shape)};
}

}  // namespace lora_mmap::keys
