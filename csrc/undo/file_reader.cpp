#include "undo/file_reader.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace lora_mmap {
namespace {

int64_t element_nbytes_of(DType dtype) {
  return dtype_bits(dtype) / 8;
}

size_t aligned(int64_t nbytes) {
  return static_cast<size_t>((nbytes + 63) / 64 * 64);
}

FilePart exchanged(FilePart part) {
  std::swap(part.rows, part.cols);
  std::swap(part.row_stride, part.col_stride);
  std::swap(part.file_row_stride, part.file_col_stride);
  return part;
}

// A single column whose elements are next to each other is a row, too.
bool runs_along_columns(const FilePart& part) {
  if (part.col_map || part.empty()) return false;
  if (part.cols == 1) return part.rows > 1 && part.file_row_stride == 1;
  return part.file_col_stride != 1;
}

template <class Element>
void pick(const std::byte* line, const int32_t* map, int64_t first, int64_t count, std::byte* to) {
  const auto* from = reinterpret_cast<const Element*>(line);
  auto* out = reinterpret_cast<Element*>(to);
  for (int64_t n = 0; n < count; ++n) out[n] = from[map[n] - first];
}

}  // namespace

FileReader::FileReader(const FilePart& part, bool vectorised)
    : part_(part),
      file_element_nbytes_(element_nbytes_of(part.file_dtype)),
      element_nbytes_(element_nbytes_of(part.dtype)),
      convert_(converter(part.file_dtype, part.dtype, vectorised)) {
  if (!runs_along_columns(part)) return;
  part_ = exchanged(part);
  turned_ = true;
}

// What was read, a converted row to pick columns from, and what comes out.
size_t FileReader::scratch_nbytes(int64_t rows, int64_t cols, int64_t span) const {
  size_t nbytes = aligned(rows * span * file_element_nbytes_);
  if (part_.col_map && convert_) nbytes += aligned(span * element_nbytes_);
  if (part_.col_map || convert_) nbytes += aligned(rows * cols * element_nbytes_);
  return nbytes;
}

Tiling FileReader::tiling(int64_t row_step, int64_t col_step, size_t most_nbytes) const {
  const auto fitting = [](int64_t step, size_t most, size_t of_one_step) {
    return step * std::max<int64_t>(static_cast<int64_t>(most / std::max<size_t>(of_one_step, 1)), 1);
  };
  const int64_t span = span_of({0, 0, rows(), cols()}).count;
  const size_t of_step = scratch_nbytes(row_step, cols(), span);
  if (of_step <= most_nbytes || part_.col_map) {
    const int64_t step_rows = fitting(row_step, most_nbytes, of_step);
    return {step_rows, std::max<int64_t>(cols(), 1), scratch_nbytes(step_rows, cols(), span)};
  }
  const int64_t step_cols = fitting(col_step, most_nbytes, scratch_nbytes(row_step, col_step, col_step));
  return {row_step, step_cols, scratch_nbytes(row_step, step_cols, step_cols)};
}

FileReader::Span FileReader::span_of(const Block& block) const {
  if (!part_.col_map || block.cols == 0) return {block.col, block.cols};
  const int32_t* first = part_.col_map + block.col;
  const auto [least, most] = std::minmax_element(first, first + block.cols);
  return {*least, *most - *least + 1};
}

// In one piece where the rows follow each other.
void FileReader::read_rows(const Block& block, const Span& span, std::byte* to) const {
  const int64_t run = span.count * file_element_nbytes_;
  const int64_t step = part_.file_row_stride * file_element_nbytes_;
  const uint64_t first =
      part_.offset + static_cast<uint64_t>(block.row * step + span.first * file_element_nbytes_);
  if (run == step || block.rows == 1) {
    part_.file->read_exact(first, static_cast<uint64_t>(block.rows * run), to, *part_.contents);
  } else {
    for (int64_t m = 0; m < block.rows; ++m)
      part_.file->read_exact(first + static_cast<uint64_t>(m * step), static_cast<uint64_t>(run),
                             to + m * run, *part_.contents);
  }
  part_.file->check_unchanged(part_.contents);
}

void FileReader::gather(const Block& block, const Span& span, const std::byte* rows, std::byte* line,
                        std::byte* to) const {
  for (int64_t m = 0; m < block.rows; ++m) {
    const std::byte* row = rows + m * span.count * file_element_nbytes_;
    if (convert_) {
      convert_(row, line, span.count);
      row = line;
    }
    std::byte* out = to + m * block.cols * element_nbytes_;
    const int32_t* map = part_.col_map + block.col;
    switch (element_nbytes_) {
      case 2:
        pick<uint16_t>(row, map, span.first, block.cols, out);
        break;
      case 4:
        pick<uint32_t>(row, map, span.first, block.cols, out);
        break;
      default:
        pick<uint64_t>(row, map, span.first, block.cols, out);
    }
  }
}

FileReader::Values FileReader::read(const Block& block, Workspace& workspace) const {
  const Span span = span_of(block);
  std::byte* raw = workspace.reserve(scratch_nbytes(block.rows, block.cols, span.count));
  read_rows(block, span, raw);
  std::byte* next = raw + aligned(block.rows * span.count * file_element_nbytes_);
  if (part_.col_map) {
    std::byte* out = next + (convert_ ? aligned(span.count * element_nbytes_) : 0);
    gather(block, span, raw, next, out);
    return {out, block.cols};
  }
  if (!convert_) return {raw, block.cols};
  convert_(raw, next, block.rows * block.cols);
  return {next, block.cols};
}

Rect FileReader::onto(const Block& block, const Values& values) const {
  std::byte* weight = static_cast<std::byte*>(part_.address) +
                      (block.row * part_.row_stride + block.col * part_.col_stride) * element_nbytes_;
  return {weight,           values.data,       block.rows, block.cols,     part_.row_stride,
          part_.col_stride, values.row_stride, 1,          element_nbytes_};
}

}  // namespace lora_mmap
