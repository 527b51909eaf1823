#include "undo/scalar_tiles.h"

#include <algorithm>
#include <limits>

#include "fuse/scalar_tile.h"
#include "fuse/weight_format.h"
#include "undo/numbering.h"

namespace lora_mmap {
namespace {

template <class Format>
bool is_finite(typename Format::Bits bits) {
  return (bits & Format::kExponent) != Format::kExponent;
}

// use(index in the tile, acc) for every element, in squares; x: null where no term needs the base.
template <class Format, class Use>
void for_each_sum(const Job& job, const Block& tile, const void* x, Workspace& workspace, Use use) {
  using Square = ScalarTile<Format>;
  std::byte* scratch = workspace.reserve(Square::kNbytes);
  for (int64_t row = 0; row < tile.rows; row += Square::kSide)
    for (int64_t col = 0; col < tile.cols; col += Square::kSide) {
      const Block square{tile.row + row, tile.col + col, std::min(Square::kSide, tile.rows - row),
                         std::min(Square::kSide, tile.cols - col)};
      const int64_t first = row * tile.cols + col;
      const void* base = static_cast<const typename Format::Bits*>(x) + (x ? first : 0);
      Square sums(job, square, {base, tile.cols, 1}, scratch);
      const typename Format::Compute* acc = sums.sum();
      for (int64_t m = 0; m < square.rows; ++m)
        for (int64_t n = 0; n < square.cols; ++n) use(first + m * tile.cols + n, *acc++);
    }
}

template <class Format>
typename Format::Bits undone(typename Format::Bits fused, typename Format::Compute acc) {
  constexpr typename Format::Bits kMinusZero = std::numeric_limits<typename Format::Bits>::max() / 2 + 1;
  if (!is_finite<Format>(fused)) return fused;
  const auto guess = Format::round(Format::widen(fused) - acc);
  return guess == kMinusZero ? typename Format::Bits{0} : guess;
}

// then(index, fused, acc) for every element.
template <class Format, class Then>
bool fuse_each(const Job& job, const Block& tile, const void* x, void* fused, Workspace& workspace,
               Then then) {
  using Bits = typename Format::Bits;
  bool overflow = false;
  for_each_sum<Format>(job, tile, x, workspace, [&](int64_t i, typename Format::Compute acc) {
    Bits bits = static_cast<const Bits*>(x)[i];
    if (is_finite<Format>(bits)) {
      bits = Format::round(Format::widen(bits) + acc);
      overflow |= !is_finite<Format>(bits);
    }
    static_cast<Bits*>(fused)[i] = bits;
    then(i, bits, acc);
  });
  return overflow;
}

}  // namespace

size_t ScalarTiles::scratch_nbytes(const Job&, const Block&) const {
  return ScalarTile<F64Weight>::kNbytes;
}

bool ScalarTiles::fuse(const Job& job, const Block& tile, const void* x, void* fused, const Ahead&,
                       Workspace& workspace) const {
  return visit_weight_format(job.dtype, [&]<class Format>(Format) {
    return fuse_each<Format>(job, tile, x, fused, workspace, [](int64_t, auto, auto) {});
  });
}

bool ScalarTiles::fuse(const Job& job, const Block& tile, const void* x, const void* pristine, void* fused,
                       const Corrections& corrections, const Ahead&, Workspace& workspace) const {
  return visit_weight_format(job.dtype, [&]<class Format>(Format) {
    using Bits = typename Format::Bits;
    Numbering<Bits> numbering(corrections, pristine, tile.rows * tile.cols);
    return fuse_each<Format>(job, tile, x, fused, workspace, [&](int64_t i, Bits bits, auto acc) {
      numbering.add(i, undone<Format>(bits, acc));
    });
  });
}

void ScalarTiles::undo(const Job& job, const Block& tile, void* values, const Ahead&,
                       Workspace& workspace) const {
  visit_weight_format(job.dtype, [&]<class Format>(Format) {
    auto* bits = static_cast<typename Format::Bits*>(values);
    for_each_sum<Format>(job, tile, nullptr, workspace, [&](int64_t i, typename Format::Compute acc) {
      bits[i] = undone<Format>(bits[i], acc);
    });
  });
}

}  // namespace lora_mmap
