// What a thread holds of a tile in the kernels that take terms of every kind, and the tile in shared memory,
// where whoever reads or writes memory has its neighbours.
#pragma once

#include "cuda/kernels/device.cuh"
#include "cuda/kernels/table.h"
#include "cuda/kernels/tiles.cuh"

namespace lora_mmap::cuda {

// Elements of the tile, T being the compute type: four rows, and of each one or two groups of four columns.
// Small enough for four to be held at once.
template <class T>
struct Patch {
  static constexpr int kRows = 4;
  static constexpr int kCols = 32 / static_cast<int>(sizeof(T));
  T value[kRows][kCols];

  // use(the value at m, n)
  template <class Use>
  LORA_MMAP_DEVICE void for_each(Use use) {
#pragma unroll
    for (int m = 0; m < kRows; ++m)
#pragma unroll
      for (int n = 0; n < kCols; ++n) use(value[m][n], m, n);
  }
  LORA_MMAP_DEVICE void clear() {
    for_each([](T& each, int, int) { each = T{0}; });
  }
};

template <class T>
constexpr TileSize kPatchTile = sizeof(T) == 4 ? kTermsTile : kTermsF64Tile;
template <class T>
constexpr i32 kPatchElements = static_cast<i32>(kPatchTile<T>.rows * kPatchTile<T>.cols);

// Which elements those are. Lanes that share a column differ in bits 0 and 4, lanes that share a row in bits
// 1 to 3.
template <class T>
struct PatchLanes {
  i32 thread;

  LORA_MMAP_DEVICE i32 row(int m) const {
    return thread / 64 * 16 + ((thread & 1) | (thread >> 3 & 2)) * 4 + m;
  }
  LORA_MMAP_DEVICE i32 col(int n) const {
    return (thread / 32 & 1) * (8 * Patch<T>::kCols) + (thread >> 1 & 7) * 4 + n % 4 + n / 4 * 32;
  }
};

// A tile of values. Columns are mixed with the row's bits so that neither a row, nor a column, nor one
// element of every patch of a warp meets itself in a bank.
template <class T>
struct Stage {
  T value[kPatchTile<T>.rows][kPatchTile<T>.cols];

  LORA_MMAP_DEVICE T& at(i32 m, i32 n) { return value[m][n ^ ((m >> 2 & 3) | (m & 3) << 2 | (m & 16))]; }

  // The block's threads bring their patches; they are there after a barrier.
  LORA_MMAP_DEVICE void put(Patch<T>& patch) {
    const PatchLanes<T> lanes{thread_index_again()};
    patch.for_each([&](T& each, int m, int n) { at(lanes.row(m), lanes.col(n)) = each; });
  }
  LORA_MMAP_DEVICE void take(Patch<T>& patch) {
    const PatchLanes<T> lanes{thread_index_again()};
    patch.for_each([&](T& each, int m, int n) { each = at(lanes.row(m), lanes.col(n)); });
  }
};

// An element of the tile, of those that a thread comes to when all of them walk it row by row or column by
// column.
struct Walk {
  i32 m;
  i32 n;

  template <class T>
  static LORA_MMAP_DEVICE Walk at(i32 index, bool by_rows) {
    constexpr i32 kRows = static_cast<i32>(kPatchTile<T>.rows);
    constexpr i32 kCols = static_cast<i32>(kPatchTile<T>.cols);
    return by_rows ? Walk{index / kCols, index % kCols} : Walk{index % kRows, index / kRows};
  }
};

LORA_MMAP_DEVICE bool has(const Tile& tile, i32 m, i32 n) {
  return m < tile.rows() && n < tile.cols();
}

// In the order that memory with these strides has neighbours in.
LORA_MMAP_DEVICE bool goes_by_rows(i64 row_stride, i64 col_stride) {
  return (col_stride < 0 ? -col_stride : col_stride) <= (row_stride < 0 ? -row_stride : row_stride);
}

static_assert(sizeof(Stage<float>) == kTermsSharedNbytes && sizeof(Stage<double>) == kTermsSharedNbytes,
              "shared memory as launched");

}  // namespace lora_mmap::cuda
