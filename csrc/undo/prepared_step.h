// A step in the form in which its tiles are taken.
#pragma once

#include <optional>

#include "undo/step.h"
#include "undo/step_check.h"
#include "undo/tile_grid.h"

namespace lora_mmap {

// Strided values of a rectangle; those of `tile` begin at at(tile).
struct Side {
  std::byte* data = nullptr;
  int64_t row_stride = 0;
  int64_t col_stride = 0;
  int64_t nbytes = 0;  // of an element

  std::byte* at(const Block& tile) const {
    return data + (tile.row * row_stride + tile.col * col_stride) * nbytes;
  }
};

// A layer's terms on the rectangle, and its own values if it has any.
struct PreparedLayer {
  Job job;
  Record* record;
  Side values;
};

// Where nothing but whole matrices falls on a column, it is taken as a row (see column_job.h): the tiles keep
// their numbers. References outlive the object.
class PreparedStep {
 public:
  explicit PreparedStep(const Step& step);

  const TileGrid& grid() const { return grid_; }
  const Side& weight() const { return weight_; }
  const std::optional<PreparedLayer>& old() const { return old_; }
  const std::optional<PreparedLayer>& next() const { return next_; }
  const std::optional<Side>& out() const { return out_; }
  DType dtype() const { return dtype_; }

  // The first element of a tile as the caller counts rows and columns.
  Block as_given(Block tile) const;

 private:
  PreparedLayer prepare(const Step& step, const Layer& layer) const;
  Side side(const void* data, int64_t row_stride, int64_t col_stride) const;

  const DType dtype_;
  const bool turned_;
  const TileGrid grid_;
  const Side weight_;
  std::optional<PreparedLayer> old_;
  std::optional<PreparedLayer> next_;
  std::optional<Side> out_;
};

}  // namespace lora_mmap
