#include "branch/axes.h"

#include <cstdlib>

namespace lora_mmap {
namespace {

bool features_are_columns(const FactorWrite& write) {
  if (write.layout != BranchLayout::plain) return write.layout == BranchLayout::down;
  return std::abs(write.feature_pitch) < std::abs(write.rank_pitch);
}

}  // namespace

Axes axes_of(const FactorWrite& write, const Extent& features) {
  const Axis along_features{features, write.features.begin, write.feature_map, write.feature_stride,
                            write.feature_pitch};
  const Axis along_ranks{write.ranks, write.ranks.begin, nullptr, write.rank_stride, write.rank_pitch};
  if (features_are_columns(write)) return {along_ranks, along_features};
  return {along_features, along_ranks};
}

}  // namespace lora_mmap
