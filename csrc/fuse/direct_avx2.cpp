#include "fuse/direct_avx2.h"

#if defined(__AVX2__)

#include <type_traits>

#include "fuse/factor_avx2.h"
#include "fuse/format_avx2.h"
#include "fuse/tile.h"

namespace lora_mmap {
namespace {

struct F64Source {
  using Bits = uint64_t;
};

// The bytes of F::kCols values of any type.
constexpr size_t kStepNbytes = 64;

// A row of values, as F's registers have the columns.
template <class F, class Source>
struct Stream {
  const typename Source::Bits* from;

  [[gnu::always_inline]] Tile<F, 1> at(int64_t col) const {
    constexpr bool kSplit = std::is_base_of_v<BF16, F>;
    if constexpr (std::is_same_v<Source, F64Source> || (kSplit && std::is_same_v<Source, BF16Source>)) {
      return {{F::low(from + col)}, {F::high(from + col)}};
    } else {
      Pair values = Source::load(from + col);
      if constexpr (kSplit) values = even_odd(canonical(values));
      return {{values.low}, {values.high}};
    }
  }

  // Those from `col` on, copied to `to` and followed by zeros.
  Stream tail(int64_t col, int64_t count, std::byte* to) const {
    std::memset(to, 0, kStepNbytes);
    std::memcpy(to, from + col, static_cast<size_t>(count) * sizeof(typename Source::Bits));
    return {reinterpret_cast<const typename Source::Bits*>(to)};
  }
};

// One value for all columns.
template <class F>
struct Repeated {
  typename F::Vec value;

  [[gnu::always_inline]] Tile<F, 1> at(int64_t) const { return {{value}, {value}}; }
  Repeated tail(int64_t, int64_t, std::byte*) const { return *this; }
};

// A NaN becomes the default one (see factor_avx2.h).
template <class F>
typename F::Vec broadcast(double value) {
  const auto scalar = static_cast<typename F::Scalar>(value == value ? value : __builtin_nan(""));
  return F::broadcast(&scalar);
}

// Steps of `Groups` times kCols columns, all loads of a step before its first store (see finish).
template <class F, bool TimesBase, class Values>
struct Row {
  using Vec = typename F::Vec;
  using Element = typename F::Element;

  const Element* base;
  Element* weight;
  Values values;
  Vec scale;

  template <int Groups>
  [[gnu::always_inline]] bool fuse(int64_t col) const {
    Tile<F, Groups> sums;
#pragma GCC unroll 4
    for (int i = 0; i < Groups; ++i) {
      const int64_t at = col + i * F::kCols;
      const Tile<F, 1> value = values.at(at);
      sums.low[i] = change(value.low[0], [&] { return F::low(base + at); });
      sums.high[i] = change(value.high[0], [&] { return F::high(base + at); });
    }
    return finish<F, Groups>(base + col, F::kCols, weight + col, F::kCols, sums);
  }

  // The rest counts as NaN: kept, and never an overflow.
  [[gnu::noinline]] bool fuse_tail(int64_t col, int64_t count) const {
    const size_t nbytes = static_cast<size_t>(count) * sizeof(Element);
    Element row[F::kCols];
    alignas(64) std::byte copy[kStepNbytes];
    std::memset(row, 0xFF, sizeof(row));
    std::memcpy(row, base + col, nbytes);
    const bool overflow = Row{row, row, values.tail(col, count, copy), scale}.template fuse<1>(0);
    std::memcpy(weight + col, row, nbytes);
    return overflow;
  }

 private:
  template <class Base>
  [[gnu::always_inline]] Vec change(Vec value, Base old) const {
    if constexpr (TimesBase)
      return F::fma(F::scaled(value, scale), old(), F::zero());
    else
      return F::fma(value, scale, F::zero());
  }
};

// Nothing is prefetched: the hardware follows two or three streams in order, and no distance was faster for
// all types (Zen 4).
template <class F, bool TimesBase, class Values>
bool fuse_columns(const DirectRow& row, Values values) {
  using Element = typename F::Element;
  constexpr int kGroups = 4;
  constexpr int64_t kStep = kGroups * F::kCols;
  const Row<F, TimesBase, Values> to{static_cast<const Element*>(row.base), static_cast<Element*>(row.weight),
                                     values, broadcast<F>(row.scale)};
  bool overflow = false;
  int64_t col = 0;
  for (; col + kStep <= row.cols; col += kStep) overflow |= to.template fuse<kGroups>(col);
  for (; col < row.cols; col += F::kCols) {
    const int64_t left = row.cols - col;
    overflow |= left >= F::kCols ? to.template fuse<1>(col) : to.fuse_tail(col, left);
  }
  return overflow;
}

template <class F, class Values>
bool fuse_values(const DirectRow& row, Values values) {
  return row.times_base ? fuse_columns<F, true>(row, values) : fuse_columns<F, false>(row, values);
}

template <class F, class Source>
bool fuse_stream(const DirectRow& row) {
  return fuse_values<F>(row, Stream<F, Source>{static_cast<const typename Source::Bits*>(row.values)});
}

template <class F>
bool fuse_as(const DirectRow& row) {
  using Scalar = typename F::Scalar;
  if (row.repeats)
    return fuse_values<F>(row, Repeated<F>{broadcast<F>(*static_cast<const Scalar*>(row.values))});
  if constexpr (sizeof(Scalar) == 8) {
    return fuse_stream<F, F64Source>(row);
  } else {
    if (row.values_dtype == DType::F16) return fuse_stream<F, F16Source>(row);
    if (row.values_dtype == DType::BF16) return fuse_stream<F, BF16Source>(row);
    return fuse_stream<F, F32Source>(row);
  }
}

}  // namespace

bool fuse_row_avx2(DType weight, const DirectRow& row) {
  switch (weight) {
    case DType::F16:
      return fuse_as<Weight<F16>>(row);
    case DType::BF16:
      return fuse_as<Weight<BF16>>(row);
    case DType::F32:
      return fuse_as<Weight<F32>>(row);
    default:
      return fuse_as<Weight<F64>>(row);
  }
}

}  // namespace lora_mmap

#endif  // __AVX2__
