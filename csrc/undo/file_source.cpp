#include "undo/file_source.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>

#include "base/dtype.h"
#include "fuse/copy.h"
#include "undo/file_blocks.h"

namespace lora_mmap {
namespace {

bool equal_rows(const Rect& r) {
  const size_t nbytes = static_cast<size_t>(r.cols * r.element_nbytes);
  for (int64_t m = 0; m < r.rows; ++m)
    if (std::memcmp(static_cast<const char*>(r.dst) + m * r.dst_row_stride * r.element_nbytes,
                    static_cast<const char*>(r.src) + m * r.src_row_stride * r.element_nbytes, nbytes) != 0)
      return false;
  return true;
}

// Squares, as copy_rect has them: whole cache lines on both sides.
template <class Element>
bool equal_elements(const Rect& r) {
  constexpr int64_t kSquare = 32;
  const auto* a = static_cast<const Element*>(r.dst);
  const auto* b = static_cast<const Element*>(r.src);
  for (int64_t m0 = 0; m0 < r.rows; m0 += kSquare)
    for (int64_t n0 = 0; n0 < r.cols; n0 += kSquare)
      for (int64_t m = m0; m < std::min(m0 + kSquare, r.rows); ++m)
        for (int64_t n = n0; n < std::min(n0 + kSquare, r.cols); ++n)
          if (a[m * r.dst_row_stride + n * r.dst_col_stride] !=
              b[m * r.src_row_stride + n * r.src_col_stride])
            return false;
  return true;
}

bool equal(const Rect& rect) {
  const Rect r = normalised(rect);
  if (r.dst_col_stride == 1 && r.src_col_stride == 1) return equal_rows(r);
  switch (r.element_nbytes) {
    case 2:
      return equal_elements<uint16_t>(r);
    case 4:
      return equal_elements<uint32_t>(r);
    default:
      return equal_elements<uint64_t>(r);
  }
}

FileBlocks blocks_of(const char* function, const std::vector<FilePart>& parts, int threads,
                     const std::optional<std::string>& isa) {
  FileBlocks blocks(function, threads, isa);
  check_parts(function, parts);
  check_files(parts);
  for (const FilePart& part : parts) blocks.add(part);
  return blocks;
}

}  // namespace

std::vector<bool> equals_file(const std::vector<FilePart>& parts, int threads,
                              const std::optional<std::string>& isa) {
  const FileBlocks blocks = blocks_of("equals_file", parts, threads, isa);
  const auto differs = std::make_unique<std::atomic<bool>[]>(parts.size());
  blocks.for_each([&](const FileBlocks::Work& work) {
    if (differs[work.part].load(std::memory_order_relaxed)) return;
    if (!equal(work.reader.onto(work.block, work.reader.read(work.block, work.workspace))))
      differs[work.part].store(true, std::memory_order_relaxed);
  });
  std::vector<bool> equals;
  for (size_t i = 0; i < parts.size(); ++i) equals.push_back(!differs[i]);
  return equals;
}

void read_converted(const std::vector<FilePart>& parts, int threads, const std::optional<std::string>& isa) {
  const FileBlocks blocks = blocks_of("read_converted", parts, threads, isa);
  blocks.for_each([](const FileBlocks::Work& work) {
    copy_rect(work.reader.onto(work.block, work.reader.read(work.block, work.workspace)));
  });
}

}  // namespace lora_mmap
