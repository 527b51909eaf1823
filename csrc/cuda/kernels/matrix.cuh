// Matrices of a term on a tile: products of factors, and values that stand in memory as they are. Any
// strides, maps, types and alignment.
#pragma once

#include "cuda/kernels/arithmetic.h"
#include "cuda/kernels/factor.cuh"
#include "cuda/kernels/patch.cuh"

namespace lora_mmap::cuda {

template <class Bits, int kCount>
LORA_MMAP_DEVICE void load_bits_of(const u64 (&addresses)[kCount], u64 (&bits)[kCount]) {
#pragma unroll
  for (int k = 0; k < kCount; ++k) bits[k] = addresses[k] ? *pointer_to<const Bits>(addresses[k]) : 0;
}

template <int kCount>
LORA_MMAP_DEVICE void load_bytes(u32 nbytes, const u64 (&addresses)[kCount], u64 (&bits)[kCount]) {
#pragma unroll
  for (int k = 0; k < kCount; ++k) bits[k] = 0;
#pragma unroll 1
  for (u32 i = 0; i < nbytes; ++i)
#pragma unroll
    for (int k = 0; k < kCount; ++k)
      if (addresses[k]) bits[k] |= static_cast<u64>(*pointer_to<const u8>(addresses[k] + i)) << (8 * i);
}

// The bits of elements of one size at addresses that are not 0, zeros for the others: all loads are under way
// before anybody waits for one.
template <int kCount>
LORA_MMAP_DEVICE void load_raw(u32 nbytes, bool bytewise, const u64 (&addresses)[kCount],
                               u64 (&bits)[kCount]) {
  if (bytewise || nbytes == 1)
    load_bytes(nbytes, addresses, bits);
  else if (nbytes == 2)
    load_bits_of<u16>(addresses, bits);
  else if (nbytes == 4)
    load_bits_of<u32>(addresses, bits);
  else
    load_bits_of<u64>(addresses, bits);
}

LORA_MMAP_DEVICE void convert(u32 type, u64 bits, float& value) {
  value = type == kF16    ? f16_to_float(static_cast<u16>(bits))
          : type == kBF16 ? bf16_to_float(static_cast<u16>(bits))
          : type == kF32  ? float_of(static_cast<u32>(bits))
          : type == kF64  ? static_cast<float>(double_of(bits))
                          : f8_to_float(type, static_cast<u8>(bits));
}
LORA_MMAP_DEVICE void convert(u32 type, u64 bits, double& value) {
  float narrow = 0;
  if (type != kF64) convert(type, bits, narrow);
  value = type == kF64 ? double_of(bits) : static_cast<double>(narrow);
}

// The elements themselves.
template <class T, int kCount>
LORA_MMAP_DEVICE void load_elements(u32 type, bool bytewise, const u64 (&addresses)[kCount],
                                    T (&values)[kCount]) {
  u64 bits[kCount];
  load_raw(element_nbytes(type), bytewise, addresses, bits);
#pragma unroll
  for (int k = 0; k < kCount; ++k) convert(type, bits[k], values[k]);
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
  u64 addresses[kEach];
#pragma unroll
  for (i32 k = 0; k < kEach; ++k)
    addresses[k] = r + k < ranks ? address + k * matrix.down_row_stride * nbytes : 0;
  T values[kEach];
  load_elements(matrix.down_type, matrix.layout & kDownBytes, addresses, values);
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
  u64 addresses[kEach];
#pragma unroll
  for (i32 k = 0; k < kEach; ++k)
    addresses[k] = r + k < ranks ? address + k * matrix.up_col_stride * nbytes : 0;
  T values[kEach];
  load_elements(matrix.up_type, matrix.layout & kUpBytes, addresses, values);
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
LORA_MMAP_DEVICE void multiply_factors(const MatrixRow& matrix, T scale, const Tile& tile,
                                       Factors<T>& factors, Patch<T>& acc) {
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

// Values that stand in memory as they are.
struct Whole {
  u64 data;
  i64 row_stride;
  i64 col_stride;
  u64 row_map;
  u64 col_map;
  u32 type;
  bool bytewise;

  LORA_MMAP_DEVICE u64 address_of(i32 row, i32 col) const {
    return data +
           (mapped(row_map, row) * row_stride + mapped(col_map, col) * col_stride) * element_nbytes(type);
  }
};

LORA_MMAP_DEVICE Whole whole_of(const MatrixRow& matrix) {
  return {matrix.down,    matrix.down_row_stride, matrix.down_col_stride,           matrix.row_map,
          matrix.col_map, matrix.down_type,       (matrix.layout & kDownBytes) != 0};
}

// By way of the stage, in the order that memory has neighbours in.
template <class T>
LORA_MMAP_DEVICE void load_whole(const Whole& whole, const Tile& tile, Stage<T>& stage, Patch<T>& values) {
  constexpr i32 kEach = 8;
  constexpr i32 kStep = static_cast<i32>(kThreads);
  const bool by_rows = goes_by_rows(whole.row_stride, whole.col_stride);
  block_barrier();  // nobody reads what was there before any more
#pragma unroll 1
  for (i32 first = thread_index_again(); first < kPatchElements<T>; first += kEach * kStep) {
    u64 addresses[kEach];
#pragma unroll
    for (i32 k = 0; k < kEach; ++k) {
      const Walk to = Walk::at<T>(first + k * kStep, by_rows);
      addresses[k] = has(tile, to.m, to.n) ? whole.address_of(tile.row + to.m, tile.col + to.n) : 0;
    }
    T loaded[kEach];
    load_elements(whole.type, whole.bytewise, addresses, loaded);
#pragma unroll
    for (i32 k = 0; k < kEach; ++k) {
      const Walk to = Walk::at<T>(first + k * kStep, by_rows);
      stage.at(to.m, to.n) = loaded[k];
    }
  }
  block_barrier();
  stage.take(values);
}

static_assert(sizeof(Factors<float>) <= kTermsSharedNbytes && sizeof(Factors<double>) <= kTermsSharedNbytes,
              "shared memory as launched");

}  // namespace lora_mmap::cuda
