// What an instruction set brings to the writing of branches. To add one: a file with these, and a line in
// branch_ops.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/dtype.h"

namespace lora_mmap {

// `count` elements of `from`, each times `scale` in fp32 and then rounded, to nearest even, into `to`; both
// of any alignment, not overlapping. True when a result is not finite. Under a FloatEnv.
using ScaledRow = bool (*)(const void* from, void* to, int64_t count, float scale);

// `count` tiles that are whole: row n has 16 * count elements at rows[n] + offset; tile i goes to `to` +
// i * pitch (both in bytes).
using PackTiles = void (*)(const std::byte* const* rows, int64_t offset, int64_t count, std::byte* to,
                           int64_t pitch);

struct BranchOps {
  ScaledRow (*scaled_row)(DType from, DType to);  // both F16, BF16 or F32
  PackTiles pack_tiles_16;                        // of 16-bit elements
  PackTiles pack_tiles_32;
  void (*publish)();  // after the last tile of a thread, before others may read them
};

// Those for the instruction set `isa` (a name of a fusion kernel): the same bits from each.
const BranchOps& choose_branch_ops(std::string_view isa);

const BranchOps& scalar_branch_ops();

}  // namespace lora_mmap
