// Where the elements of a block lie in the order of TileOps::sweep's accumulators.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lora_mmap {

// One row: panel p begins p * stride bytes from `data`. A stride of 0 repeats one panel.
struct PanelRow {
  std::byte* data;
  int64_t stride;
};

// A block as full groups of TileOps::rows rows, then single rows, so that every group that sweep() makes of
// them is one of the two.
struct PanelBlock {
  int64_t rows;
  int64_t cols;
  int64_t group_rows;
  int64_t panel_nbytes;
  int64_t element_nbytes;  // of the compute type

  int64_t panel_cols() const { return panel_nbytes / element_nbytes; }
  int64_t panels() const { return (cols + panel_cols() - 1) / panel_cols(); }
  int64_t row_nbytes() const { return panels() * panel_nbytes; }
  size_t nbytes() const { return static_cast<size_t>(rows * row_nbytes()); }
  int64_t rows_in_groups() const { return rows / group_rows * group_rows; }

  // Row m of the block whose panels begin at `panels`.
  PanelRow row(std::byte* panels, int64_t m) const {
    if (m >= rows_in_groups()) return {panels + m * row_nbytes(), panel_nbytes};
    const int64_t in_group = m % group_rows;
    return {panels + (m - in_group) * row_nbytes() + in_group * panel_nbytes, group_rows * panel_nbytes};
  }
};

}  // namespace lora_mmap
