// What is to be written: a LoRA factor into a rectangle of the low-rank branch that a quantised linear has.
//
//   branch(feature, rank) = round(fp32(factor[i * feature_stride + (rank - ranks.begin) * rank_stride]) *
//   scale)
//
// with i = feature - features.begin, or what the map has for it; the product is rounded to fp32, then once to
// the branch's type. Pointers are borrowed for the duration of a call.
#pragma once

#include <cstdint>

#include "base/dtype.h"

namespace lora_mmap {

// How a branch lies in memory: in packed tiles (tile_layout.h), those of proj_down or those of proj_up, or
// with two strides.
enum class BranchLayout : uint8_t { down, up, plain };

// From `begin` to before `end`.
struct Extent {
  int64_t begin;
  int64_t end;

  int64_t size() const { return end - begin; }
};

struct FactorWrite {
  BranchLayout layout;
  void* branch;  // (feature 0, rank 0), or the tile that has it; any alignment
  // In elements, of either sign: from one tile to the next along features and along ranks; plain: from one
  // element to the next.
  int64_t feature_pitch;
  int64_t rank_pitch;
  DType dtype;  // F16, BF16 or F32
  Extent features;
  Extent ranks;
  bool zeros;          // instead of a factor
  const void* factor;  // any alignment
  DType factor_dtype;
  int64_t feature_stride;  // in elements, of either sign
  int64_t rank_stride;
  double scale;                // rounded once to fp32
  const int32_t* feature_map;  // [features.size()]: -1 leaves a feature as it is; null: 0, 1, 2 ...

  bool is_empty() const { return features.size() == 0 || ranks.size() == 0; }
};

}  // namespace lora_mmap
