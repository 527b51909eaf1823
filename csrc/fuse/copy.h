// Exact copies of strided rectangles: backup and restore of weights, and staging of blocks.
#pragma once

#include <cstdint>
#include <vector>

namespace lora_mmap {

// Source and destination are aligned to the element and do not overlap. Strides in elements, of either sign.
struct Rect {
  void* dst;
  const void* src;
  int64_t rows;
  int64_t cols;
  int64_t dst_row_stride;
  int64_t dst_col_stride;
  int64_t src_row_stride;
  int64_t src_col_stride;
  int64_t element_nbytes;  // 1, 2, 4, 8 or 16
};

// Copies one rectangle on this thread.
void copy_rect(const Rect& rect);

// Throws Error(Fault::argument) if a rectangle makes no sense.
void check_rects(const std::vector<Rect>& rects);

// The same rectangle with its shorter steps along the columns, and as a single row where the whole is one
// run.
Rect normalised(Rect rect);

// Copies all of `rects`, in no particular order, on up to `threads` threads. Throws Error(Fault::argument)
// before the first byte is written if a rectangle makes no sense.
void copy(const std::vector<Rect>& rects, int threads);

}  // namespace lora_mmap
