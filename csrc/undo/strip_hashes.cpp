#include "undo/strip_hashes.h"

#include "fuse/copy.h"

namespace lora_mmap {
namespace {

const std::byte* element(const WeightElements& weight, int64_t row, int64_t col) {
  return weight.data + (row * weight.row_stride + col * weight.col_stride) * weight.element_nbytes;
}

size_t row_nbytes(const WeightElements& weight, const Block& tile) {
  return static_cast<size_t>(tile.cols * weight.element_nbytes);
}

bool has_rows_of_whole_steps(const WeightElements& weight, const Block& tile) {
  return weight.col_stride == 1 && row_nbytes(weight, tile) % kHashStepNbytes == 0;
}

}  // namespace

uint64_t StripHashes::of_one(const WeightElements& weight, const Block& tile, HashSteps take) {
  const size_t nbytes = static_cast<size_t>(tile.rows) * row_nbytes(weight, tile);
  const std::byte* first = element(weight, tile.row, tile.col);
  if (weight.col_stride == 1 && (weight.row_stride == tile.cols || tile.rows == 1))
    return hash_of(first, nbytes, take);
  std::byte* dense = dense_.reserve(nbytes);
  copy_rect({dense, first, tile.rows, tile.cols, tile.cols, 1, weight.row_stride, weight.col_stride,
             weight.element_nbytes});
  return hash_of(dense, nbytes, take);
}

const std::vector<uint64_t>& StripHashes::of(const WeightElements& weight, const std::vector<Block>& tiles,
                                             HashSteps take) {
  pieces_.assign(tiles.size(), HashInPieces());
  const int64_t rows = tiles.empty() ? 0 : tiles.front().rows;
  for (int64_t m = 0; m < rows; ++m)
    for (size_t i = 0; i < tiles.size(); ++i)
      if (has_rows_of_whole_steps(weight, tiles[i]))
        pieces_[i].take(element(weight, tiles[i].row + m, tiles[i].col), row_nbytes(weight, tiles[i]), take);
  values_.clear();
  for (size_t i = 0; i < tiles.size(); ++i)
    values_.push_back(has_rows_of_whole_steps(weight, tiles[i]) ? pieces_[i].value()
                                                                : of_one(weight, tiles[i], take));
  return values_;
}

}  // namespace lora_mmap
