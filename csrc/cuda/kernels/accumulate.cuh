// The contract's order of operations at the speed of the FMA pipes: tiles of 128 x 128, 8 x 8 accumulators in
// each of 256 threads, A and B * s in shared memory as fp32.
#pragma once

#include "cuda/kernels/arithmetic.h"
#include "cuda/kernels/device.cuh"
#include "cuda/kernels/table.h"
#include "cuda/kernels/tiles.cuh"

namespace lora_mmap::cuda {

// Some ranks of A and of B * s, [rank][column] and [rank][row]. Whoever stores has four neighbouring columns,
// or its own row, and whoever multiplies has four of each: no access meets another in a bank.
struct OrderedFactors {
  float down[kOrderedRanks][kOrderedTile.cols];
  float up[kOrderedRanks][kOrderedTile.rows];
};

// Which elements of the tile a thread accumulates: rows row(0) + {0, 1, 2, 3, 16, 17, 18, 19} and columns
// col(0) + {0, 1, 2, 3, 32, 33, 34, 35}. Lanes that share a column differ in bit 0 and lanes that share a row
// in bits 1 to 3, so that two quarters of a warp are served at once.
struct Lanes {
  i32 thread;

  static LORA_MMAP_DEVICE constexpr i32 row_step(int i) { return i % 4 + i / 4 * 16; }
  static LORA_MMAP_DEVICE constexpr i32 col_step(int group) { return group * 32; }
  LORA_MMAP_DEVICE i32 row(int i) const {
    return thread / 64 * 32 + ((thread & 1) | (thread >> 3 & 2)) * 4 + row_step(i);
  }
  LORA_MMAP_DEVICE i32 col(int group) const {
    return (thread / 32 & 1) * 64 + (thread >> 1 & 7) * 4 + col_step(group);
  }
};

LORA_MMAP_DEVICE void multiply_rank(const OrderedFactors& factors, const Lanes& lanes, i32 r,
                                    float (&acc)[8][8]) {
  float down[8];
  float up[8];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const Words4 d = *reinterpret_cast<const Words4*>(&factors.down[r][lanes.col(i)]);
    const Words4 u = *reinterpret_cast<const Words4*>(&factors.up[r][lanes.row(4 * i)]);
    down[4 * i] = float_of(d.x), down[4 * i + 1] = float_of(d.y);
    down[4 * i + 2] = float_of(d.z), down[4 * i + 3] = float_of(d.w);
    up[4 * i] = float_of(u.x), up[4 * i + 1] = float_of(u.y);
    up[4 * i + 2] = float_of(u.z), up[4 * i + 3] = float_of(u.w);
  }
#pragma unroll
  for (int m = 0; m < 8; ++m)
#pragma unroll
    for (int n = 0; n < 8; ++n) acc[m][n] = fused_multiply_add(up[m], down[n], acc[m][n]);
}

// Not one rank more than there are: fma(0, x, acc) is not acc where x is infinite or acc is -0.
LORA_MMAP_DEVICE void multiply_chunk(const OrderedFactors& factors, i32 ranks, float (&acc)[8][8]) {
  const Lanes lanes{thread_index_again()};
  i32 r = 0;
#pragma unroll 1
  for (; r + 4 <= ranks; r += 4)
#pragma unroll
    for (int i = 0; i < 4; ++i) multiply_rank(factors, lanes, r + i, acc);
#pragma unroll 1
  for (; r < ranks; ++r) multiply_rank(factors, lanes, r, acc);
}

// Whether a thread's elements from there on are in the tile: they come in groups of four.
LORA_MMAP_DEVICE bool has_group(const Tile& tile, i32 row, i32 col) {
  return row < tile.rows() && col < tile.cols();
}

}  // namespace lora_mmap::cuda
