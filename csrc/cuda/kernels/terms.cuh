// Terms of every kind on a tile, one operation after the other as docs/numerics.md has them.
#pragma once

#include "cuda/kernels/matrix.cuh"

namespace lora_mmap::cuda {

// Pristine values, and the shared memory of the block that works on one tile of them.
struct TermTile {
  u64 base;
  i64 row_stride;
  i64 col_stride;
  u32 type;
  const Tile& tile;

  template <class T>
  LORA_MMAP_DEVICE Factors<T>& factors() const {
    return *reinterpret_cast<Factors<T>*>(shared_memory());
  }
  template <class T>
  LORA_MMAP_DEVICE Stage<T>& stage() const {
    return *reinterpret_cast<Stage<T>*>(shared_memory());
  }
};

template <class Format>
LORA_MMAP_DEVICE void fill_with_base(const TermTile& at) {
  const bool by_rows = goes_by_rows(at.row_stride, at.col_stride);
  fill(at.stage<float>(), at.tile, by_rows, [&](i32 m, i32 n) {
    const i64 element = (at.tile.row + m) * at.row_stride + (at.tile.col + n) * at.col_stride;
    return Format::widen(pointer_to<const typename Format::Bits>(at.base)[element], 0);
  });
}

LORA_MMAP_DEVICE void load_base(const TermTile& at, Patch<float>& values) {
  block_barrier();
  if (at.type == kF16)
    fill_with_base<F16>(at);
  else if (at.type == kBF16)
    fill_with_base<BF16>(at);
  else
    fill_with_base<F32>(at);
  block_barrier();
  at.stage<float>().take(values);
}
LORA_MMAP_DEVICE void load_base(const TermTile& at, Patch<double>& values) {
  block_barrier();
  fill(at.stage<double>(), at.tile, goes_by_rows(at.row_stride, at.col_stride), [&](i32 m, i32 n) {
    const i64 element = (at.tile.row + m) * at.row_stride + (at.tile.col + n) * at.col_stride;
    return double_of(pointer_to<const u64>(at.base)[element]);
  });
  block_barrier();
  at.stage<double>().take(values);
}

template <class T>
LORA_MMAP_DEVICE void evaluate(const MatrixRow& matrix, const TermTile& at, Patch<T>& values) {
  if (matrix.rank == kWholeMatrix) return load_whole(matrix, at.tile, at.stage<T>(), values);
  values.clear();
  multiply_factors(matrix, T{1}, at.tile, at.factors<T>(), values);
}

// acc with the term, but for its gain.
template <class T>
LORA_MMAP_DEVICE void add_change(const AnyTermRow& term, const TermTile& at, Patch<T>& acc) {
  const T scale = static_cast<T>(term.scale);
  const bool times = (term.parts & (kTimes | kTimesBase)) != 0;
  if (!times && term.matrix.rank != kWholeMatrix)
    return multiply_factors(term.matrix, scale, at.tile, at.factors<T>(), acc);
  Patch<T> matrix;
  evaluate(term.matrix, at, matrix);
  if (!times) {
    acc.for_each([&](T& each, int m, int n) { each = fused_multiply_add(matrix.value[m][n], scale, each); });
    return;
  }
  Patch<T> other;
  if (term.parts & kTimes)
    evaluate(term.times, at, other);
  else
    load_base(at, other);
  acc.for_each([&](T& each, int m, int n) {
    each = fused_multiply_add(multiply(matrix.value[m][n], scale), other.value[m][n], each);
  });
}

// `change` becomes `sum` with the term whose change, without the gain, it is.
template <class T>
LORA_MMAP_DEVICE void apply_gain(const AnyTermRow& term, const TermTile& at, const Patch<T>& sum,
                                 Patch<T>& change) {
  const T weight = static_cast<T>(term.gain_weight);
  Patch<T> base;
  load_base(at, base);
  Patch<T> gain;
  load_whole(term.gain, at.tile, at.stage<T>(), gain);
  change.for_each([&](T& each, int m, int n) {
    const T value = add(base.value[m][n], each);
    const T changed = fused_multiply_add(gain.value[m][n], value, -base.value[m][n]);
    each = fused_multiply_add(changed, weight, sum.value[m][n]);
  });
}

template <class T>
LORA_MMAP_DEVICE void add_term(const AnyTermRow& term, const TermTile& at, Patch<T>& acc) {
  if (!(term.parts & kGain)) return add_change(term, at, acc);
  Patch<T> change;
  change.clear();
  add_change(term, at, change);
  apply_gain(term, at, acc, change);
  acc = change;
}

}  // namespace lora_mmap::cuda
