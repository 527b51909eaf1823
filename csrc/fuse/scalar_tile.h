// A small tile of a job, one element at a time in the order of the contract.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "fuse/factor.h"
#include "fuse/kernel.h"

namespace lora_mmap {

// T is the compute type of `Format`, the job's weight format.
template <class Format>
class ScalarTile {
 public:
  using T = typename Format::Compute;
  static constexpr int64_t kSide = 32;
  static constexpr int64_t kArea = kSide * kSide;
  static constexpr size_t kNbytes = (4 * kArea + kSide) * sizeof(double);  // 33 KiB

  // `tile` has at most kSide rows and columns; `scratch` kNbytes bytes.
  ScalarTile(const Job& job, const Block& tile, std::byte* scratch)
      : ScalarTile(
            job, tile,
            {element_at(job.base, job.dtype, tile.row * job.base_row_stride + tile.col * job.base_col_stride),
             job.base_row_stride, job.base_col_stride},
            scratch) {}

  // Where the tile's first base value stands, and strides in elements.
  struct Base {
    const void* data;
    int64_t row_stride;
    int64_t col_stride;
  };

  // With a base that stands elsewhere than the job says.
  ScalarTile(const Job& job, const Block& tile, const Base& base, std::byte* scratch)
      : job_(job), tile_(tile), base_(base), scratch_(reinterpret_cast<T*>(scratch)) {}

  // The sum of all terms, [rows, cols].
  const T* sum() {
    T* acc = buffer(0);
    std::fill_n(acc, kArea, T{0});
    for (const Term& term : job_.terms) add(term, acc);
    return acc;
  }

  T base(int64_t m, int64_t n) const {
    const int64_t at = m * base_.row_stride + n * base_.col_stride;
    return Format::widen(static_cast<const typename Format::Bits*>(base_.data)[at]);
  }

 private:
  void add(const Term& term, T* acc) {
    if (!term.gain) return add_change(term, acc);
    T* change = buffer(1);
    T* factors = buffer(2);
    std::fill_n(change, kArea, T{0});
    add_change(term, change);
    evaluate(term.gain->factors, factors);
    const T weight = static_cast<T>(term.gain->weight);
    for_each([&](int64_t i, T old) {
      acc[i] = std::fma(std::fma(factors[i], old + change[i], -old), weight, acc[i]);
    });
  }

  // A term without its gain.
  void add_change(const Term& term, T* acc) {
    const T scale = static_cast<T>(term.scale);
    if (!term.matrix.is_whole() && !term.times && !term.times_base) return multiply(term.matrix, scale, acc);
    T* matrix = buffer(2);
    evaluate(term.matrix, matrix);
    if (term.times) {
      T* times = buffer(3);
      evaluate(*term.times, times);
      for_each([&](int64_t i, T) { acc[i] = std::fma(matrix[i] * scale, times[i], acc[i]); });
    } else if (term.times_base) {
      for_each([&](int64_t i, T old) { acc[i] = std::fma(matrix[i] * scale, old, acc[i]); });
    } else {
      for_each([&](int64_t i, T) { acc[i] = std::fma(matrix[i], scale, acc[i]); });
    }
  }

  void evaluate(const Matrix& matrix, T* out) {
    if (!matrix.is_whole()) {
      std::fill_n(out, kArea, T{0});
      return multiply(matrix, T{1}, out);
    }
    for (int64_t m = 0; m < tile_.rows; ++m)
      read_down(matrix, matrix.row_map ? matrix.row_map[tile_.row + m] : tile_.row + m, out + m * tile_.cols);
  }

  // Each accumulator sees its ranks one after the other.
  void multiply(const Matrix& matrix, T scale, T* acc) {
    T* down = buffer(4);
    for (int64_t r = 0; r < matrix.rank; ++r) {
      read_down(matrix, r, down);
      for (int64_t m = 0; m < tile_.rows; ++m) {
        const T scaled = read_up(matrix, tile_.row + m, r) * scale;
        T* out = acc + m * tile_.cols;
        for (int64_t n = 0; n < tile_.cols; ++n) out[n] = std::fma(scaled, down[n], out[n]);
      }
    }
  }

  // The tile's columns of row `row` of down.
  void read_down(const Matrix& matrix, int64_t row, T* out) {
    const int32_t* map = matrix.col_map ? matrix.col_map + tile_.col : nullptr;
    const int64_t first = row * matrix.down_row_stride + (map ? 0 : tile_.col * matrix.down_col_stride);
    const std::byte* data = element_at(matrix.down, matrix.down_dtype, first);
    read_factor_row({matrix.down_dtype, data, matrix.down_col_stride, map}, tile_.cols, out);
  }

  T read_up(const Matrix& matrix, int64_t row, int64_t rank) {
    const int64_t up_row = matrix.row_map ? matrix.row_map[row] : row;
    const int64_t at = up_row * matrix.up_row_stride + rank * matrix.up_col_stride;
    T value;
    read_factor_row({matrix.up_dtype, element_at(matrix.up, matrix.up_dtype, at)}, 1, &value);
    return value;
  }

  // use(index into a buffer, the base there)
  template <class Use>
  void for_each(Use use) {
    for (int64_t m = 0; m < tile_.rows; ++m)
      for (int64_t n = 0; n < tile_.cols; ++n) use(m * tile_.cols + n, base(m, n));
  }

  T* buffer(int64_t index) { return scratch_ + index * kArea; }

  const Job& job_;
  const Block& tile_;
  const Base base_;
  T* scratch_;  // the sum; a change with a gain; a matrix (then the gain); what it is times; a row of down
};

}  // namespace lora_mmap
