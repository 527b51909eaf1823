// Blocks of a checkpoint's tensor, read by position and converted, into a worker's scratch.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/convert.h"
#include "fuse/copy.h"
#include "fuse/job.h"
#include "fuse/kernel.h"
#include "undo/file_part.h"

namespace lora_mmap {

// Works along the file's rows: where those are the part's columns, its rows and columns are exchanged here.
// Nothing is mapped, so that a file truncated by somebody is an error and no signal.
class FileReader {
 public:
  // For a part that check_parts lets pass; the two may be used for as long as what it points to. Converts
  // with AVX2 where `vectorised`, which changes no bit.
  FileReader(const FilePart& part, bool vectorised);

  // True where the part's rows and columns are exchanged.
  bool turned() const { return turned_; }
  int64_t rows() const { return part_.rows; }
  int64_t cols() const { return part_.cols; }
  const FilePart& part() const { return part_; }

  // Blocks of whole rows where a worker has room for those; their sizes are multiples of the steps, with one
  // of each at least. `most_nbytes`: of scratch, exceeded only by the least blocks.
  Tiling tiling(int64_t row_step, int64_t col_step, size_t most_nbytes) const;

  // Values of the weight's type at `data`, row by row.
  struct Values {
    const std::byte* data;
    int64_t row_stride;  // in elements
  };

  // In `workspace` until it is used again. Throws as File::read_exact does, and Fault::read where the file is
  // not what it was when it was opened: nothing that was read from another state of it is returned, as far as
  // the file system's clock resolves. Under a FloatEnv.
  Values read(const Block& block, Workspace& workspace) const;

  // The way of a block's values into the weight.
  Rect onto(const Block& block, const Values& values) const;

 private:
  struct Span {  // of a row of the file
    int64_t first;
    int64_t count;
  };

  Span span_of(const Block& block) const;
  size_t scratch_nbytes(int64_t rows, int64_t cols, int64_t span) const;
  void read_rows(const Block& block, const Span& span, std::byte* to) const;
  void gather(const Block& block, const Span& span, const std::byte* rows, std::byte* line,
              std::byte* to) const;

  FilePart part_;
  bool turned_ = false;
  int64_t file_element_nbytes_;
  int64_t element_nbytes_;
  Converter convert_;  // null where the types are the same
};

}  // namespace lora_mmap
