#include "undo/scalar_tiles.h"

#include <algorithm>

#include "fuse/scalar_tile.h"
#include "fuse/weight_format.h"
#include "undo/numbering.h"

namespace lora_mmap {
namespace {

template <class Format>
bool is_finite(typename Format::Bits bits) {
  return (bits & Format::kExponent) != Format::kExponent;
}

// use(row, column, acc) for every element, in squares; `x`: the base of terms that need one.
template <class Format, class Use>
void for_each_sum(const Job& job, const Block& tile, TileRows x, Workspace& workspace, Use use) {
  using Square = ScalarTile<Format>;
  std::byte* scratch = workspace.reserve(Square::kNbytes);
  for (int64_t row = 0; row < tile.rows; row += Square::kSide)
    for (int64_t col = 0; col < tile.cols; col += Square::kSide) {
      const Block square{tile.row + row, tile.col + col, std::min(Square::kSide, tile.rows - row),
                         std::min(Square::kSide, tile.cols - col)};
      Square sums(job, square, {x.at(row, col, sizeof(typename Format::Bits)), x.stride, 1}, scratch);
      const typename Format::Compute* acc = sums.sum();
      for (int64_t m = 0; m < square.rows; ++m)
        for (int64_t n = 0; n < square.cols; ++n) use(row + m, col + n, *acc++);
    }
}

template <class Format>
typename Format::Bits* bits_at(TileRows rows, int64_t m, int64_t n) {
  return reinterpret_cast<typename Format::Bits*>(rows.at(m, n, sizeof(typename Format::Bits)));
}

template <class Format>
typename Format::Bits undone_bits(typename Format::Bits fused, typename Format::Compute acc) {
  return is_finite<Format>(fused) ? Format::guess(Format::widen(fused) - acc) : fused;
}

// write(row, column, fused bits, acc) for every element.
template <class Format, class Write>
bool fuse_each(const Job& job, const Block& tile, TileRows x, Workspace& workspace, Write write) {
  bool overflow = false;
  for_each_sum<Format>(job, tile, x, workspace, [&](int64_t m, int64_t n, typename Format::Compute acc) {
    typename Format::Bits bits = *bits_at<Format>(x, m, n);
    if (is_finite<Format>(bits)) {
      bits = Format::round(Format::widen(bits) + acc);
      overflow |= !is_finite<Format>(bits);
    }
    write(m, n, bits, acc);
  });
  return overflow;
}

}  // namespace

size_t ScalarTiles::scratch_nbytes(const Job&, const Block&) const {
  return ScalarTile<F64Weight>::kNbytes;
}

bool ScalarTiles::fuse(const Job& job, const Block& tile, TileRows x, TileRows fused, TileRows,
                       Workspace& workspace) const {
  return visit_weight_format(job.dtype, [&]<class Format>(Format) {
    return fuse_each<Format>(job, tile, x, workspace, [&](int64_t m, int64_t n, auto bits, auto) {
      *bits_at<Format>(fused, m, n) = bits;
    });
  });
}

bool ScalarTiles::record(const Job& job, const Block& tile, TileRows x, TileRows pristine, TileRows fused,
                         const Corrections& corrections, TileRows, Workspace& workspace) const {
  return visit_weight_format(job.dtype, [&]<class Format>(Format) {
    Numbering<typename Format::Bits> numbering(corrections, tile.rows * tile.cols);
    return fuse_each<Format>(job, tile, x, workspace, [&](int64_t m, int64_t n, auto bits, auto acc) {
      numbering.add(m * tile.cols + n, undone_bits<Format>(bits, acc), *bits_at<Format>(pristine, m, n));
      *bits_at<Format>(fused, m, n) = bits;
    });
  });
}

void ScalarTiles::undo(const Job& job, const Block& tile, TileRows fused, TileRows undone, TileRows,
                       Workspace& workspace) const {
  visit_weight_format(job.dtype, [&]<class Format>(Format) {
    for_each_sum<Format>(job, tile, fused, workspace, [&](int64_t m, int64_t n, auto acc) {
      *bits_at<Format>(undone, m, n) = undone_bits<Format>(*bits_at<Format>(fused, m, n), acc);
    });
  });
}

}  // namespace lora_mmap
