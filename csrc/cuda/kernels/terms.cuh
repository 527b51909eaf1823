// Terms of every kind on a tile, one operation after the other as docs/numerics.md has them.
#pragma once

#include "cuda/kernels/matrix.cuh"

namespace lora_mmap::cuda {

// A tile of pristine values, and the shared memory of the block that works on it.
struct TermTile {
  Whole base;
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

// The first operand of a term is its matrix, the second what that is multiplied by.
LORA_MMAP_DEVICE bool is_product(const AnyTermRow& term, u32 operand) {
  if (operand == 0) return term.matrix.rank != kWholeMatrix;
  return (term.parts & kTimes) != 0 && term.times.rank != kWholeMatrix;
}
LORA_MMAP_DEVICE Whole whole_of(const AnyTermRow& term, u32 operand, const TermTile& at) {
  if (operand == 0) return whole_of(term.matrix);
  return (term.parts & kTimes) != 0 ? whole_of(term.times) : at.base;
}

// acc with the term, but for its gain. Everything is inlined, so the large functions have one call each: a
// low-rank term begins its sum at acc, other products at zero.
template <class T>
LORA_MMAP_DEVICE void add_change(const AnyTermRow& term, const TermTile& at, Patch<T>& acc) {
  const T scale = static_cast<T>(term.scale);
  const bool times = (term.parts & (kTimes | kTimesBase)) != 0;
  const bool low_rank = !times && is_product(term, 0);
  Patch<T> matrix;
  Patch<T> values = acc;
  if (!low_rank) values.clear();
#pragma unroll 1
  for (u32 operand = 0; operand <= (times ? 1U : 0U); ++operand) {
    if (operand != 0) {
      matrix = values;
      values.clear();
    }
    if (is_product(term, operand))
      multiply_factors(operand == 0 ? term.matrix : term.times, low_rank ? scale : T{1}, at.tile,
                       at.factors<T>(), values);
    else
      load_whole(whole_of(term, operand, at), at.tile, at.stage<T>(), values);
  }
  acc.for_each([&](T& each, int m, int n) {
    const T value = values.value[m][n];
    each = low_rank ? value
           : times  ? fused_multiply_add(multiply(matrix.value[m][n], scale), value, each)
                    : fused_multiply_add(value, scale, each);
  });
}

// One of T for every row, or for every column.
template <class T>
LORA_MMAP_DEVICE void load_gain(const Whole& gain, const Tile& tile, Patch<T>& values) {
  const PatchLanes<T> lanes{thread_index_again()};
  values.for_each([&](T& each, int m, int n) {
    each = has(tile, lanes.row(m), lanes.col(n))
               ? *pointer_to<const T>(gain.address_of(tile.row + lanes.row(m), tile.col + lanes.col(n)))
               : T{0};
  });
}

// `change` becomes `sum` with the term whose change, without the gain, it is.
template <class T>
LORA_MMAP_DEVICE void apply_gain(const AnyTermRow& term, const TermTile& at, const Patch<T>& sum,
                                 Patch<T>& change) {
  const T weight = static_cast<T>(term.gain_weight);
  Patch<T> base;
  load_whole(at.base, at.tile, at.stage<T>(), base);
  Patch<T> gain;
  load_gain(whole_of(term.gain), at.tile, gain);
  change.for_each([&](T& each, int m, int n) {
    const T value = add(base.value[m][n], each);
    const T changed = fused_multiply_add(gain.value[m][n], value, -base.value[m][n]);
    each = fused_multiply_add(changed, weight, sum.value[m][n]);
  });
}

template <class T>
LORA_MMAP_DEVICE void add_term(const AnyTermRow& term, const TermTile& at, Patch<T>& acc) {
  const bool gained = (term.parts & kGain) != 0;
  const Patch<T> sum = acc;
  if (gained) acc.clear();
  add_change(term, at, acc);
  if (gained) apply_gain(term, at, sum, acc);
}

}  // namespace lora_mmap::cuda
