#include "fuse/scalar.h"

#include "fuse/scalar_tile.h"
#include "fuse/weight_format.h"

namespace lora_mmap {
namespace {

constexpr int64_t kSide = ScalarTile<F64Weight>::kSide;
constexpr size_t kTileNbytes = ScalarTile<F64Weight>::kNbytes;
constexpr size_t kLanesNbytes = kSide * kNormLanes * sizeof(double);

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

// add(row, column, v * v) for every element of a tile, row by row.
template <class Format, class Add>
void for_each_square(const Job& job, const Block& tile, std::byte* scratch, Add add) {
  ScalarTile<Format> values(job, tile, scratch);
  const auto* change = values.sum();
  for (int64_t m = 0; m < tile.rows; ++m)
    for (int64_t n = 0; n < tile.cols; ++n, ++change) {
      const double v = values.base(m, n) + *change;  // rounded to the compute type before it is widened
      add(m, n, v * v);
    }
}

template <class Format>
void sum_rows(const Job& job, const Block& block, std::byte* scratch, double* sums) {
  double* lanes = reinterpret_cast<double*>(scratch + kTileNbytes);
  std::fill_n(lanes, block.rows * kNormLanes, 0.0);
  for (int64_t col = 0; col < block.cols; col += kSide) {
    const Block tile{block.row, col, block.rows, std::min(kSide, block.cols - col)};
    for_each_square<Format>(job, tile, scratch, [&](int64_t m, int64_t n, double square) {
      lanes[m * kNormLanes + (col + n) % kNormLanes] += square;
    });
  }
  for (int64_t m = 0; m < block.rows; ++m) {
    sums[m] = 0;
    for (int64_t lane = 0; lane < kNormLanes; ++lane) sums[m] += lanes[m * kNormLanes + lane];
  }
}

template <class Format>
void sum_columns(const Job& job, const Block& block, std::byte* scratch, double* sums) {
  std::fill_n(sums, block.cols, 0.0);
  for (int64_t row = 0; row < block.rows; row += kSide) {
    const Block tile{row, block.col, std::min(kSide, block.rows - row), block.cols};
    for_each_square<Format>(job, tile, scratch,
                            [&](int64_t, int64_t n, double square) { sums[n] += square; });
  }
}

}  // namespace

Tiling ScalarKernel::tiling(const Job& job, size_t) const {
  return {std::min(kSide, job.rows), std::min(kSide, job.cols), kTileNbytes};
}

bool ScalarKernel::fuse(const Job& job, const Block& block, Workspace& workspace) const {
  return visit_weight_format(job.dtype, [&]<class Format>(Format) {
    ScalarTile<Format> tile(job, block, workspace.reserve(kTileNbytes));
    return add_to_weight<Format>(job, block, tile.sum());
  });
}

Tiling ScalarKernel::norm_tiling(const Gains& gains, size_t) const {
  const Job& job = gains.job;
  return {std::min(kSide, job.rows), std::min(kSide, job.cols), kTileNbytes + kLanesNbytes};
}

void ScalarKernel::sum_squares(const Gains& gains, const Block& block, const Tiling&, Workspace& workspace,
                               double* sums) const {
  visit_weight_format(gains.job.dtype, [&]<class Format>(Format) {
    std::byte* scratch = workspace.reserve(kTileNbytes + kLanesNbytes);
    if (gains.by_columns)
      sum_columns<Format>(gains.job, block, scratch, sums);
    else
      sum_rows<Format>(gains.job, block, scratch, sums);
  });
}

}  // namespace lora_mmap
