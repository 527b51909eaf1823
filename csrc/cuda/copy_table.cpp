#include <string>

#include "base/error.h"
#include "cuda/kernels/table.h"
#include "cuda/table.h"
#include "cuda/table_rows.h"

namespace lora_mmap::cuda {
namespace {

// `rect` in elements of `nbytes`, a multiple of its own; its columns follow each other and fill them.
Rect in_units_of(Rect rect, int64_t nbytes) {
  const int64_t ratio = nbytes / rect.element_nbytes;
  rect.cols /= ratio;
  rect.dst_row_stride /= ratio;
  rect.src_row_stride /= ratio;
  rect.element_nbytes = nbytes;
  return rect;
}

// The widest element by which every row can be copied from its beginning on.
int64_t widest_unit(const Rect& rect) {
  int64_t unit = 16;
  const auto fits = [&] {
    const bool addresses = (address_of(rect.dst) | address_of(rect.src)) % static_cast<u64>(unit) == 0;
    const int64_t ratio = unit / rect.element_nbytes;
    const bool strides = rect.dst_row_stride % ratio == 0 && rect.src_row_stride % ratio == 0;
    return addresses && (rect.rows == 1 || strides);
  };
  while (unit > rect.element_nbytes && !fits()) unit /= 2;
  return unit;
}

Rect columns_from(Rect rect, int64_t first, int64_t cols) {
  const int64_t nbytes = first * rect.element_nbytes;
  rect.dst = static_cast<std::byte*>(rect.dst) + nbytes * rect.dst_col_stride;
  rect.src = static_cast<const std::byte*>(rect.src) + nbytes * rect.src_col_stride;
  rect.cols = cols;
  return rect;
}

// At most three rectangles that the kernel copies well: the elements as wide as they go, a long row folded to
// rows as long as a tile, and what is left over of either.
void widen(const Rect& whole, std::vector<Rect>& parts) {
  const Rect rect = normalised(whole);
  if (rect.dst_col_stride != 1 || rect.src_col_stride != 1) {
    parts.push_back(rect);
    return;
  }
  const int64_t unit = widest_unit(rect);
  const int64_t ratio = unit / rect.element_nbytes;
  const int64_t covered = rect.cols / ratio * ratio;
  if (covered < rect.cols) parts.push_back(columns_from(rect, covered, rect.cols - covered));
  if (covered == 0) return;
  Rect wide = in_units_of(columns_from(rect, 0, covered), unit);
  constexpr int64_t kRow = kCopyTile.cols;
  if (wide.rows == 1 && wide.cols > kRow) {
    const int64_t left = wide.cols % kRow;
    if (left > 0) parts.push_back(columns_from(wide, wide.cols - left, left));
    wide.rows = wide.cols / kRow;
    wide.cols = wide.dst_row_stride = wide.src_row_stride = kRow;
  }
  parts.push_back(wide);
}

}  // namespace

Table copy_table(const std::vector<Rect>& rects) {
  check_rects(rects);
  std::vector<Rect> parts;
  for (const Rect& rect : rects)
    if (rect.rows && rect.cols) widen(rect, parts);
  std::vector<CopyRow> rows;
  uint64_t tiles = 0;
  for (const Rect& part : parts) {
    if (part.rows > kMostElements || part.cols > kMostElements)
      throw Error(Fault::argument, "[copy] a rectangle of " + std::to_string(part.rows) + " x " +
                                       std::to_string(part.cols) +
                                       " elements, expected less than 2^31 each way");
    const auto first_tile = static_cast<u32>(tiles);
    const u32 across = cut(kCopyTile, part.rows, part.cols, tiles);
    if (tiles > kMostTiles) throw Error(Fault::argument, "[copy] the rectangles have more than 2^31 tiles");
    rows.push_back({.dst = address_of(part.dst),
                    .src = address_of(part.src),
                    .rows = part.rows,
                    .cols = part.cols,
                    .dst_row_stride = part.dst_row_stride,
                    .dst_col_stride = part.dst_col_stride,
                    .src_row_stride = part.src_row_stride,
                    .src_col_stride = part.src_col_stride,
                    .first_tile = first_tile,
                    .tiles_across = across,
                    .element_nbytes = static_cast<u32>(part.element_nbytes),
                    .reserved = 0});
  }
  Table table;
  for (const Rect& part : parts) {
    table.data.push_back(address_of(part.dst));
    table.data.push_back(address_of(part.src));
  }
  append(table.bytes, rows);
  if (!rows.empty())
    table.launches.push_back({.kernel = "lora_mmap_copy",
                              .threads = kThreads,
                              .shared_nbytes = 0,
                              .tiles = static_cast<uint32_t>(tiles),
                              .rows = static_cast<uint32_t>(rows.size()),
                              .rows_offset = 0,
                              .terms_offset = 0,
                              .takes = Takes::copy});
  return table;
}

}  // namespace lora_mmap::cuda
