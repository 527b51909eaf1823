// What the tables of jobs and of rectangles are both made with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "cuda/kernels/table.h"

namespace lora_mmap::cuda {

// A tile number and a grid's stride must add up within 32 bits.
constexpr uint64_t kMostTiles = uint64_t{1} << 31;
constexpr int64_t kMostElements =
    std::numeric_limits<int32_t>::max() - 4096;  // and an index with a tile's size

inline u64 address_of(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer);
}

// Appends the tiles of `rows` x `cols` to those of a launch; returns how many are side by side.
inline uint32_t cut(TileSize tile, int64_t rows, int64_t cols, uint64_t& tiles) {
  const uint64_t across = (static_cast<uint64_t>(cols) + tile.cols - 1) / tile.cols;
  tiles += across * ((static_cast<uint64_t>(rows) + tile.rows - 1) / tile.rows);
  return static_cast<uint32_t>(across);
}

template <class Row>
size_t append(std::vector<std::byte>& bytes, const std::vector<Row>& rows) {
  const size_t offset = bytes.size();
  bytes.resize(offset + rows.size() * sizeof(Row));
  if (!rows.empty()) std::memcpy(bytes.data() + offset, rows.data(), rows.size() * sizeof(Row));
  return offset;
}

}  // namespace lora_mmap::cuda
