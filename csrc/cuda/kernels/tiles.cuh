// Which tile is whose: blocks walk the tiles of all jobs as one sequence.
#pragma once

#include "cuda/kernels/device.cuh"
#include "cuda/kernels/table.h"

namespace lora_mmap::cuda {

template <class T>
LORA_MMAP_DEVICE T* pointer_to(u64 address) {
  return reinterpret_cast<T*>(address);
}

// A tile and the row of the table that it belongs to.
struct Tile {
  u32 owner;
  i32 row;
  i32 col;
  u32 extent;  // rows in the lower half, columns in the upper: registers are scarce

  LORA_MMAP_DEVICE i32 rows() const { return static_cast<i32>(extent & 0xFFFFu); }
  LORA_MMAP_DEVICE i32 cols() const { return static_cast<i32>(extent >> 16); }
};

// The last of table[from..n) whose first tile is not above `tile`. A block's tiles ascend, so that is mostly
// table[from] or the next: the step doubles until it is past, then halves.
template <class Row>
LORA_MMAP_DEVICE u32 owner_of(const Row* table, u32 n, u32 tile, u32 from) {
  u32 step = 1;
#pragma unroll 1
  while (n - from > step && table[from + step].first_tile <= tile) {
    from += step;
    step *= 2;
  }
#pragma unroll 1
  for (step /= 2; step > 0; step /= 2)
    if (n - from > step && table[from + step].first_tile <= tile) from += step;
  return from;
}

// `from` is the owner of an earlier tile, or 0.
template <class Row>
LORA_MMAP_DEVICE Tile tile_at(const Row* table, u32 n, TileSize size, u32 index, u32 from) {
  Tile tile;
  tile.owner = owner_of(table, n, index, from);
  const Row& row = table[tile.owner];
  const u32 within = index - row.first_tile;
  tile.row = static_cast<i32>(within / row.tiles_across * size.rows);
  tile.col = static_cast<i32>(within % row.tiles_across * size.cols);
  const i64 rows = row.rows - tile.row;
  const i64 cols = row.cols - tile.col;
  tile.extent = static_cast<u32>(rows < size.rows ? rows : size.rows) |
                static_cast<u32>(cols < size.cols ? cols : size.cols) << 16;
  return tile;
}

}  // namespace lora_mmap::cuda
