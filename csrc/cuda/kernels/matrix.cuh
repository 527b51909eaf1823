// Matrices of a term on a tile: products of factors, and values that stand in memory as they are. Any strides, maps,
// types and alignment.
#pragma once

#include "cuda/kernels/arithmetic.h"
#include "cuda/kernels/factor.cuh"
#include "cuda/kernels/patch.cuh"

namespace lora_mmap::cuda {

template <u32 kType>
struct TypeIs {
  static constexpr u32 value = kType;
};

// visitor(TypeIs<type>{})
template <class Visitor>
LORA_MMAP_DEVICE void visit_type(u32 type, Visitor visitor) {
  switch (type) {
    case kF16:
      return visitor(TypeIs<kF16>{});
    case kBF16:
      return visitor(TypeIs<kBF16>{});
    case kF32:
      return visitor(TypeIs<kF32>{});
    case kF64:
      return visitor(TypeIs<kF64>{});
    case kE4M3:
      return visitor(TypeIs<kE4M3>{});
    case kE5M2:
      return visitor(TypeIs<kE5M2>{});
    case kE4M3FNUZ:
      return visitor(TypeIs<kE4M3FNUZ>{});
    default:
      return visitor(TypeIs<kE5M2FNUZ>{});
  }
}

template <class T, u32 kType>
LORA_MMAP_DEVICE T load_as(u64 address, bool bytewise) {
  if constexpr (sizeof(T) == 8 && kType == kF64) return double_of(load_bits<u64>(address, bytewise));
  return load_element<kType>(address, bytewise);
}

LORA_MMAP_DEVICE i64 mapped(u64 map, i32 index) {
  return map ? pointer_to<const i32>(map)[index] : index;
}

// Some ranks of down and of up * scale, [rank][column] and [rank][row].
template <class T>
struct Factors {
  T down[kTermsRanks][kPatchTile<T>.cols];
  T up[kTermsRanks][kPatchTile<T>.rows];
};

// `kCount` elements `step` bytes apart, of which `count` are there; all loads before the first use.
template <class T, int kCount>
LORA_MMAP_DEVICE void load_run(u32 type, u64 address, i64 step, i32 count, bool bytewise, T (&values)[kCount]) {
  visit_type(type, [&](auto is) {
#pragma unroll
    for (i32 k = 0; k < kCount; ++k)
      values[k] = k < count ? load_as<T, decltype(is)::value>(address + k * step, bytewise) : T{0};
  });
}

// Each thread some ranks of one column of down.
template <class T>
LORA_MMAP_DEVICE void fetch_down(const MatrixRow& matrix, const Tile& tile, i32 first, i32 ranks,
                                 Factors<T>& factors) {
  constexpr i32 kCols = static_cast<i32>(kPatchTile<T>.cols);
  constexpr i32 kEach = static_cast<i32>(kTermsRanks) * kCols / static_cast<i32>(kThreads);
  const i32 n = thread_index_again() % kCols;
  const i32 r = thread_index_again() / kCols * kEach;
  if (n >= tile.cols()) return;
  const i64 nbytes = element_nbytes(matrix.down_type);
  const i64 col = mapped(matrix.col_map, tile.col + n) * matrix.down_col_stride;
  const u64 address = matrix.down + ((first + r) * matrix.down_row_stride + col) * nbytes;
  T values[kEach];
  load_run(matrix.down_type, address, matrix.down_row_stride * nbytes, ranks - r, matrix.layout & kDownBytes, values);
#pragma unroll
  for (i32 k = 0; k < kEach; ++k) factors.down[r + k][n] = values[k];
}

// Each thread some ranks of one row of up.
template <class T>
LORA_MMAP_DEVICE void fetch_up(const MatrixRow& matrix, T scale, const Tile& tile, i32 first, i32 ranks,
                               Factors<T>& factors) {
  constexpr i32 kRows = static_cast<i32>(kPatchTile<T>.rows);
  constexpr i32 kEach = static_cast<i32>(kTermsRanks) * kRows / static_cast<i32>(kThreads);
  const i32 m = thread_index_again() % kRows;
  const i32 r = thread_index_again() / kRows * kEach;
  if (m >= tile.rows()) return;
  const i64 nbytes = element_nbytes(matrix.up_type);
  const i64 row = mapped(matrix.row_map, tile.row + m) * matrix.up_row_stride;
  const u64 address = matrix.up + (row + (first + r) * matrix.up_col_stride) * nbytes;
  T values[kEach];
  load_run(matrix.up_type, address, matrix.up_col_stride * nbytes, ranks - r, matrix.layout & kUpBytes, values);
#pragma unroll
  for (i32 k = 0; k < kEach; ++k) factors.up[r + k][m] = multiply(values[k], scale);
}

LORA_MMAP_DEVICE void read_four(const float* from, float* to) {
  const Words4 words = *reinterpret_cast<const Words4*>(from);
  to[0] = float_of(words.x), to[1] = float_of(words.y), to[2] = float_of(words.z), to[3] = float_of(words.w);
}
LORA_MMAP_DEVICE void read_four(const double* from, double* to) {
#pragma unroll
  for (int i = 0; i < 4; ++i) to[i] = from[i];
}

template <class T>
LORA_MMAP_DEVICE void multiply_ranks(const Factors<T>& factors, i32 ranks, Patch<T>& acc) {
  const PatchLanes<T> lanes{thread_index_again()};
#pragma unroll 2
  for (i32 r = 0; r < ranks; ++r) {
    T up[Patch<T>::kRows];
    T down[Patch<T>::kCols];
    read_four(&factors.up[r][lanes.row(0)], up);
#pragma unroll
    for (int n = 0; n < Patch<T>::kCols; n += 4) read_four(&factors.down[r][lanes.col(n)], down + n);
    acc.for_each([&](T& each, int m, int n) { each = fused_multiply_add(up[m], down[n], each); });
  }
}

// acc += up * scale @ down, rank after rank.
template <class T>
LORA_MMAP_DEVICE void multiply_factors(const MatrixRow& matrix, T scale, const Tile& tile, Factors<T>& factors,
                                       Patch<T>& acc) {
#pragma unroll 1
  for (i32 first = 0; first < matrix.rank; first += static_cast<i32>(kTermsRanks)) {
    const i32 left = matrix.rank - first;
    const i32 ranks = left < static_cast<i32>(kTermsRanks) ? left : static_cast<i32>(kTermsRanks);
    block_barrier();  // nobody reads what was there before any more
    fetch_down(matrix, tile, first, ranks, factors);
    fetch_up(matrix, scale, tile, first, ranks, factors);
    block_barrier();
    multiply_ranks(factors, ranks, acc);
  }
}

template <class T>
LORA_MMAP_DEVICE void load_whole(const MatrixRow& matrix, const Tile& tile, Stage<T>& stage, Patch<T>& values) {
  const i64 nbytes = element_nbytes(matrix.down_type);
  const bool bytewise = matrix.layout & kDownBytes;
  const bool by_rows = goes_by_rows(matrix.down_row_stride, matrix.down_col_stride);
  block_barrier();
  visit_type(matrix.down_type, [&](auto is) {
    fill(stage, tile, by_rows, [&](i32 m, i32 n) {
      const i64 row = mapped(matrix.row_map, tile.row + m) * matrix.down_row_stride;
      const i64 col = mapped(matrix.col_map, tile.col + n) * matrix.down_col_stride;
      return load_as<T, decltype(is)::value>(matrix.down + (row + col) * nbytes, bytewise);
    });
  });
  block_barrier();
  stage.take(values);
}

static_assert(sizeof(Factors<float>) <= kTermsSharedNbytes && sizeof(Factors<double>) <= kTermsSharedNbytes,
              "shared memory as launched");

}  // namespace lora_mmap::cuda
