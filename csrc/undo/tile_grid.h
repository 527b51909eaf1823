// The tiles of a rectangle: what is hashed, undone and written as one.
#pragma once

#include <algorithm>
#include <cstdint>

#include "fuse/job.h"

namespace lora_mmap {

// Anchored at the first element and made from the shape alone, so that a record outlives every choice of
// kernel and threads. Tiles are numbered rows fastest.
class TileGrid {
 public:
  static constexpr int64_t kRows = 24;
  static constexpr int64_t kCols = 512;
  static constexpr int64_t kElements = kRows * kCols;  // at most, of a tile

  // Narrow rectangles have taller tiles. A single column has those of a single row (see column_job.h).
  TileGrid(int64_t rows, int64_t cols) : rows_(rows), cols_(cols) {
    if (cols == 1) {
      tile_rows_ = kCols;
      tile_cols_ = 1;
    } else {
      tile_rows_ = kRows * std::clamp<int64_t>(kCols / std::max<int64_t>(cols, 1), 1, 16);
      tile_cols_ = kCols;
    }
  }

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t tile_rows() const { return std::min(tile_rows_, rows_); }
  int64_t tile_cols() const { return std::min(tile_cols_, cols_); }
  int64_t tiles() const { return down() * ((cols_ + tile_cols_ - 1) / tile_cols_); }

  Block tile(int64_t index) const {
    const int64_t row = index % down() * tile_rows_;
    const int64_t col = index / down() * tile_cols_;
    return {row, col, std::min(tile_rows_, rows_ - row), std::min(tile_cols_, cols_ - col)};
  }

 private:
  int64_t down() const { return (rows_ + tile_rows_ - 1) / tile_rows_; }

  int64_t rows_;
  int64_t cols_;
  int64_t tile_rows_;
  int64_t tile_cols_;
};

}  // namespace lora_mmap
