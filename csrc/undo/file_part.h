// The values of a checkpoint file that belong to a rectangle of a weight.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/dtype.h"
#include "safetensors/contents.h"
#include "safetensors/file.h"

namespace lora_mmap {

// Row m, column n of the rectangle is element m * file_row_stride + col_map[n] * file_col_stride of the
// file's type, counted from `offset`. Pointers are borrowed for the duration of a call.
struct FilePart {
  const safetensors::File* file;
  const safetensors::Contents* contents;  // names what cannot be read: the Header
  uint64_t offset;                        // bytes, in the file
  DType file_dtype;
  int64_t file_row_stride;  // in elements; one of the two is 1 where the rectangle has more than one row or
                            // column
  int64_t file_col_stride;
  const int32_t* col_map;  // [cols], for a file_col_stride of 1; null: the same column
  void* address;           // of the weight, or of memory laid out as one; aligned to its element
  int64_t rows;
  int64_t cols;
  int64_t row_stride;  // in elements, of either sign
  int64_t col_stride;
  DType dtype;  // file_dtype, or what it is_convertible to

  bool empty() const { return rows == 0 || cols == 0; }
};

// Throws Error(Fault::argument), naming `function`, for a part that makes no sense or lies outside of its
// file.
void check_parts(const char* function, const std::vector<FilePart>& parts);

// Throws Error(Fault::read) where one of the files is not what it was when it was opened.
void check_files(const std::vector<FilePart>& parts);

}  // namespace lora_mmap
