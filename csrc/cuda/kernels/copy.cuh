// Copies of rectangles, element by element. The host has made the elements as wide as they go.
#pragma once

#include "cuda/kernels/device.cuh"
#include "cuda/kernels/table.h"
#include "cuda/kernels/tiles.cuh"

namespace lora_mmap::cuda {

// Each thread has one column of the tile; all of its rows are read before the first is written, so that many
// loads are in flight.
template <class Element>
LORA_MMAP_DEVICE void copy_tile(const CopyRow& rect, const Tile& tile) {
  constexpr int kRows = static_cast<int>(kCopyTile.rows) / 2;
  const i32 col = static_cast<i32>(threadIdx.x);
  if (col >= tile.cols()) return;
  const Element* src = pointer_to<const Element>(rect.src) + (tile.col + col) * rect.src_col_stride;
  Element* dst = pointer_to<Element>(rect.dst) + (tile.col + col) * rect.dst_col_stride;
#pragma unroll
  for (i32 first = 0; first < static_cast<i32>(kCopyTile.rows); first += kRows) {
    Element held[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i)
      if (first + i < tile.rows()) held[i] = src[(tile.row + first + i) * rect.src_row_stride];
#pragma unroll
    for (int i = 0; i < kRows; ++i)
      if (first + i < tile.rows()) dst[(tile.row + first + i) * rect.dst_row_stride] = held[i];
  }
}

LORA_MMAP_DEVICE void copy_rects(const CopyParams& params) {
  const CopyRow* rects = pointer_to<const CopyRow>(params.rects);
  u32 owner = 0;
  for (u32 index = blockIdx.x; index < params.n_tiles; index += gridDim.x) {
    const Tile tile = tile_at(rects, params.n_rects, kCopyTile, index, owner);
    owner = tile.owner;
    const CopyRow& rect = rects[owner];
    switch (rect.element_nbytes) {
      case 1:
        copy_tile<u8>(rect, tile);
        break;
      case 2:
        copy_tile<u16>(rect, tile);
        break;
      case 4:
        copy_tile<u32>(rect, tile);
        break;
      case 8:
        copy_tile<u64>(rect, tile);
        break;
      default:
        copy_tile<Words4>(rect, tile);
    }
  }
}

}  // namespace lora_mmap::cuda
