#include "undo/file_part.h"

#include <algorithm>
#include <set>
#include <string>

#include "base/convert.h"
#include "base/error.h"
#include "fuse/weight_format.h"

namespace lora_mmap {
namespace {

class PartCheck {
 public:
  PartCheck(const char* function, size_t index, const FilePart& part)
      : function_(function), index_(index), part_(part) {}

  void check() const {
    if (part_.rows < 0 || part_.cols < 0) refuse("negative size");
    if (!part_.file || !part_.contents) refuse("no file or no header");
    check_types();
    if (part_.empty()) return;
    if (!part_.address) refuse("null pointer");
    if (part_.row_stride == 0 || part_.col_stride == 0) refuse("a stride of the weight is 0");
    check_file_strides();
    check_range();
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(Fault::argument,
                "[" + std::string(function_) + "] item " + std::to_string(index_) + ": " + what);
  }

  void check_types() const {
    const std::string dtype(dtype_name(part_.dtype));
    if (!is_weight_dtype(part_.dtype))
      refuse("a weight of type " + dtype + ", expected F16, BF16, F32 or F64");
    if (part_.file_dtype != part_.dtype && !is_convertible(part_.file_dtype, part_.dtype))
      refuse("no conversion from " + std::string(dtype_name(part_.file_dtype)) + " to " + dtype);
  }

  void check_file_strides() const {
    const int64_t row = part_.file_row_stride;
    const int64_t col = part_.file_col_stride;
    if (row < 1 || col < 1) refuse("a stride of the file is below 1");
    const bool by_rows = col == 1 || part_.cols == 1;
    const bool by_columns = row == 1 || part_.rows == 1;
    if (!by_rows && !by_columns)
      refuse("strides of the file " + std::to_string(row) + ", " + std::to_string(col) +
             ", expected one of 1");
    if (part_.col_map && col != 1) refuse("a map of columns that are not next to each other");
  }

  // That the last element lies in the file, without trusting any number.
  void check_range() const {
    int64_t last_col = part_.cols - 1;
    if (part_.col_map) {
      const auto [least, most] = std::minmax_element(part_.col_map, part_.col_map + part_.cols);
      if (*least < 0) refuse("a map with column " + std::to_string(*least));
      last_col = *most;
    }
    int64_t down, along, last, nbytes;
    if (__builtin_mul_overflow(part_.rows - 1, part_.file_row_stride, &down) ||
        __builtin_mul_overflow(last_col, part_.file_col_stride, &along) ||
        __builtin_add_overflow(down, along, &last) || __builtin_add_overflow(last, 1, &last) ||
        __builtin_mul_overflow(last, int64_t{dtype_bits(part_.file_dtype) / 8}, &nbytes))
      refuse("a rectangle beyond 2^63 bytes");
    part_.file->require_range(part_.offset, static_cast<uint64_t>(nbytes));
  }

  const char* function_;
  size_t index_;
  const FilePart& part_;
};

}  // namespace

void check_parts(const char* function, const std::vector<FilePart>& parts) {
  for (size_t i = 0; i < parts.size(); ++i) PartCheck(function, i, parts[i]).check();
}

void check_files(const std::vector<FilePart>& parts) {
  std::set<const safetensors::File*> seen;
  for (const FilePart& part : parts)
    if (seen.insert(part.file).second) part.file->check_unchanged(part.contents);
}

}  // namespace lora_mmap
