#include "fuse/scalar.h"

#include <algorithm>
#include <cmath>

#include "fuse/factor.h"
#include "fuse/weight_format.h"

namespace lora_mmap {
namespace {

constexpr int64_t kTile = 48;  // the accumulators of a tile in fp64 take 18 KiB

// acc[m][n] over every term in order: each accumulator sees its ranks one after the other.
template <class T>
void accumulate(const Job& job, const Block& block, T* acc, T* down_row) {
  std::fill_n(acc, block.rows * block.cols, T{0});
  for (const Term& each : job.terms) {
    const Matrix& term = each.matrix;
    const T scale = static_cast<T>(each.scale);
    const int32_t* col_map = term.col_map ? term.col_map + block.col : nullptr;
    for (int64_t r = 0; r < term.rank; ++r) {
      const int64_t first = r * term.down_row_stride + (col_map ? 0 : block.col * term.down_col_stride);
      read_factor_row(
          {term.down_dtype, element_at(term.down, term.down_dtype, first), term.down_col_stride, col_map},
          block.cols, down_row);
      for (int64_t m = 0; m < block.rows; ++m) {
        const int64_t row = block.row + m;
        const int64_t up_row = term.row_map ? term.row_map[row] : row;
        T up;
        const int64_t at = up_row * term.up_row_stride + r * term.up_col_stride;
        read_factor_row({term.up_dtype, element_at(term.up, term.up_dtype, at)}, 1, &up);
        const T scaled = up * scale;
        T* out = acc + m * block.cols;
        for (int64_t n = 0; n < block.cols; ++n) out[n] = std::fma(scaled, down_row[n], out[n]);
      }
    }
  }
}

template <class Format>
bool add_to_weight(const Job& job, const Block& block, const typename Format::Compute* acc) {
  using Bits = typename Format::Bits;
  const auto is_finite = [](Bits bits) { return (bits & Format::kExponent) != Format::kExponent; };
  bool overflow = false;
  for (int64_t m = block.row; m < block.row + block.rows; ++m) {
    for (int64_t n = block.col; n < block.col + block.cols; ++n, ++acc) {
      const Bits old = static_cast<const Bits*>(job.base)[m * job.base_row_stride + n * job.base_col_stride];
      Bits fused = old;
      if (is_finite(old)) {
        fused = Format::round(Format::widen(old) + *acc);
        overflow |= !is_finite(fused);
      }
      static_cast<Bits*>(job.weight)[m * job.weight_row_stride + n * job.weight_col_stride] = fused;
    }
  }
  return overflow;
}

}  // namespace

Tiling ScalarKernel::tiling(const Job& job, size_t) const {
  return {std::min(kTile, job.rows), std::min(kTile, job.cols), (kTile * kTile + kTile) * sizeof(double)};
}

bool ScalarKernel::fuse(const Job& job, const Block& block, Workspace& workspace) const {
  return visit_weight_format(job.dtype, [&]<class Format>(Format) {
    using T = typename Format::Compute;
    T* acc = reinterpret_cast<T*>(workspace.reserve((kTile * kTile + kTile) * sizeof(T)));
    accumulate(job, block, acc, acc + kTile * kTile);
    return add_to_weight<Format>(job, block, acc);
  });
}

}  // namespace lora_mmap
