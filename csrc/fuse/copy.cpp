#include "fuse/copy.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/thread_pool.h"

namespace lora_mmap {
namespace {

constexpr int64_t kPieceNbytes = 1 << 20;  // of work that one thread takes at a time

struct Wide {  // 16 bytes, such as a complex double
  uint64_t words[2];
};

// A strided loop that reads and writes whole cache lines on both sides: squares of 32 x 32.
template <class Element>
void copy_elements(const Rect& r) {
  constexpr int64_t kSquare = 32;
  auto* dst = static_cast<Element*>(r.dst);
  const auto* src = static_cast<const Element*>(r.src);
  for (int64_t m0 = 0; m0 < r.rows; m0 += kSquare)
    for (int64_t n0 = 0; n0 < r.cols; n0 += kSquare)
      for (int64_t m = m0; m < std::min(m0 + kSquare, r.rows); ++m)
        for (int64_t n = n0; n < std::min(n0 + kSquare, r.cols); ++n)
          dst[m * r.dst_row_stride + n * r.dst_col_stride] = src[m * r.src_row_stride + n * r.src_col_stride];
}

void copy_rows(const Rect& r) {
  auto* dst = static_cast<char*>(r.dst);
  const auto* src = static_cast<const char*>(r.src);
  const size_t nbytes = static_cast<size_t>(r.cols * r.element_nbytes);
  for (int64_t m = 0; m < r.rows; ++m)
    std::memcpy(dst + m * r.dst_row_stride * r.element_nbytes, src + m * r.src_row_stride * r.element_nbytes,
                nbytes);
}

Rect part(const Rect& r, int64_t row, int64_t rows, int64_t col, int64_t cols) {
  Rect p = r;
  p.dst = static_cast<char*>(r.dst) + (row * r.dst_row_stride + col * r.dst_col_stride) * r.element_nbytes;
  p.src =
      static_cast<const char*>(r.src) + (row * r.src_row_stride + col * r.src_col_stride) * r.element_nbytes;
  p.rows = rows;
  p.cols = cols;
  return p;
}

// Appends pieces of about kPieceNbytes: runs of whole rows, or runs within a long row.
void cut(const Rect& whole, std::vector<Rect>& pieces) {
  const Rect r = normalised(whole);
  const int64_t piece = kPieceNbytes / r.element_nbytes;
  const int64_t cols = std::min(r.cols, piece);
  const int64_t rows = std::max<int64_t>(piece / cols, 1);
  for (int64_t m = 0; m < r.rows; m += rows)
    for (int64_t n = 0; n < r.cols; n += cols)
      pieces.push_back(part(r, m, std::min(rows, r.rows - m), n, std::min(cols, r.cols - n)));
}

void check(const Rect& r, size_t index) {
  const auto refuse = [&](const std::string& what) {
    throw Error(Fault::argument, "[copy] rectangle " + std::to_string(index) + ": " + what);
  };
  if (r.rows < 0 || r.cols < 0) refuse("negative size");
  const int64_t size = r.element_nbytes;
  if (size != 1 && size != 2 && size != 4 && size != 8 && size != 16)
    refuse("elements of " + std::to_string(size) + " bytes, expected 1, 2, 4, 8 or 16");
  if (r.rows && r.cols && (!r.dst || !r.src)) refuse("null pointer");
}

}  // namespace

// The side whose other step is long is then walked along its cache lines: at a power of two the long steps of
// a column would all fall into one set of the cache.
Rect normalised(Rect r) {
  const auto longest = [](int64_t a, int64_t b) { return std::max(std::abs(a), std::abs(b)); };
  if (longest(r.dst_col_stride, r.src_col_stride) > longest(r.dst_row_stride, r.src_row_stride)) {
    std::swap(r.rows, r.cols);
    std::swap(r.dst_row_stride, r.dst_col_stride);
    std::swap(r.src_row_stride, r.src_col_stride);
  }
  const bool rows_follow = r.dst_row_stride == r.cols && r.src_row_stride == r.cols;
  if (r.dst_col_stride == 1 && r.src_col_stride == 1 && rows_follow) {
    r.cols *= r.rows;
    r.rows = 1;
  }
  return r;
}

void check_rects(const std::vector<Rect>& rects) {
  for (size_t i = 0; i < rects.size(); ++i) check(rects[i], i);
}

void copy_rect(const Rect& rect) {
  const Rect r = normalised(rect);
  if (r.dst_col_stride == 1 && r.src_col_stride == 1) return copy_rows(r);
  switch (r.element_nbytes) {
    case 1:
      return copy_elements<uint8_t>(r);
    case 2:
      return copy_elements<uint16_t>(r);
    case 4:
      return copy_elements<uint32_t>(r);
    case 8:
      return copy_elements<uint64_t>(r);
    default:
      return copy_elements<Wide>(r);
  }
}

void copy(const std::vector<Rect>& rects, int threads) {
  if (threads < 1)
    throw Error(Fault::argument, "[copy] threads is " + std::to_string(threads) + ", expected 1 or more");
  check_rects(rects);
  std::vector<Rect> pieces;
  for (const Rect& rect : rects)
    if (rect.rows && rect.cols) cut(rect, pieces);
  parallel_for(threads, static_cast<int64_t>(pieces.size()),
               [&](int, int64_t i) { copy_rect(pieces[static_cast<size_t>(i)]); });
}

}  // namespace lora_mmap
