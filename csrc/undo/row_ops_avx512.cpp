#include "undo/row_ops.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)

// GCC 12's own header initialises registers with themselves and warns of it (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include "fuse/format_avx512.h"
#include "undo/corrections_avx512.h"
#include "undo/recorded_rows.h"
#include "undo/recorded_sweep.h"

namespace lora_mmap {
namespace {

template <int Nbytes>
struct Integers;

template <>
struct Integers<2> {
  static __m512i subtract(__m512i a, __m512i b) { return _mm512_sub_epi16(a, b); }
};

template <>
struct Integers<4> {
  static __m512i subtract(__m512i a, __m512i b) { return _mm512_sub_epi32(a, b); }
};

template <class Format>
struct Recorded : Weight<Format> {
  using Row = typename Format::Row;
  using Ints = Integers<sizeof(typename Format::Element)>;
  static constexpr int kParts = Weight<Format>::kParts;

  static Row keep(Row guess, const Row& fused) {
    for (int i = 0; i < kParts; ++i)
      guess.part[i] = Format::blend(Weight<Format>::non_finite(fused.part[i]), guess.part[i], fused.part[i]);
    return guess;
  }
  static Row steps(const Row& guess, const Row& pristine) {
    Row apart;
    for (int i = 0; i < kParts; ++i) apart.part[i] = Ints::subtract(pristine.part[i], guess.part[i]);
    return apart;
  }
};

// A format in which a fusion is the way back: the sums are subtracted, and the results guesses.
template <class Format>
struct Undone : Format {
  using Row = typename Format::Row;
  using Vec = typename Format::Vec;
  static Row add_round(const typename Format::Element* from, Vec low, Vec high) {
    return Format::guess(Format::subtract(Format::low(from), low),
                         Format::subtract(Format::high(from), high));
  }
};

bool record_row(DType weight, PanelRow acc, const RecordedRow& row) {
  if (weight == DType::F16) return record_row_as<Recorded<F16>>(acc, row);
  if (weight == DType::BF16) return record_row_as<Recorded<BF16>>(acc, row);
  return record_row_as<Recorded<F32>>(acc, row);
}

void undo_row(DType weight, PanelRow acc, int64_t cols, const void* fused, void* undone) {
  if (weight == DType::F16) return undo_row_as<Recorded<F16>>(acc, cols, fused, undone);
  if (weight == DType::BF16) return undo_row_as<Recorded<BF16>>(acc, cols, fused, undone);
  return undo_row_as<Recorded<F32>>(acc, cols, fused, undone);
}

// Masks go to memory as they come: to put them together in registers takes longer.
void mark_nonzero(DType weight, const void* steps, int64_t count, uint64_t* nonzero) {
  const auto* from = static_cast<const std::byte*>(steps);
  auto* to = reinterpret_cast<std::byte*>(nonzero);
  if (weight == DType::F32) {
    for (int64_t i = 0; i < count; i += 16, from += 64, to += 2) {
      const __m512i steps_16 = load_bits(from);
      const __mmask16 marks = _mm512_test_epi32_mask(steps_16, steps_16);
      std::memcpy(to, &marks, sizeof(marks));
    }
  } else {
    for (int64_t i = 0; i < count; i += 32, from += 64, to += 4) {
      const __m512i steps_32 = load_bits(from);
      const __mmask32 marks = _mm512_test_epi16_mask(steps_32, steps_32);
      std::memcpy(to, &marks, sizeof(marks));
    }
  }
}

// Fetches the row below meanwhile: rows are short, and the hardware sees each begin too late.
void hash_steps_avx512(uint32_t* lanes, const HashedRows& from) {
  constexpr int kRegisters = kHashLanes / 16;
  const __m512i factor = _mm512_set1_epi32(static_cast<int32_t>(kHashFactor));
  __m512i h[kRegisters];
  for (int i = 0; i < kRegisters; ++i) h[i] = _mm512_load_si512(lanes + 16 * i);
  for (int64_t m = 0; m < from.rows; ++m) {
    const std::byte* data = from.data + m * from.stride_nbytes;
    for (size_t step = 0; step < from.steps; ++step, data += kHashStepNbytes)
#pragma GCC unroll 4
      for (int i = 0; i < kRegisters; ++i) {
        _mm_prefetch(reinterpret_cast<const char*>(data + from.stride_nbytes + 64 * i), _MM_HINT_T0);
        const __m512i mixed = _mm512_mullo_epi32(_mm512_xor_si512(h[i], load_bits(data + 64 * i)), factor);
        h[i] = _mm512_xor_si512(mixed, _mm512_srli_epi32(mixed, 15));
      }
  }
  for (int i = 0; i < kRegisters; ++i) _mm512_store_si512(lanes + 16 * i, h[i]);
}

bool record_sweep(DType weight, const RecordSweep& sweep) {
  if (weight == DType::F16) return sweep_in_groups<Recording<Recorded<F16>>, 6, 4, 2, 1>(sweep);
  if (weight == DType::BF16) return sweep_in_groups<Recording<Recorded<BF16>>, 6, 4, 2, 1>(sweep);
  return sweep_in_groups<Recording<Recorded<F32>>, 6, 4, 2, 1>(sweep);
}

bool undo_sweep(DType weight, const Sweep& sweep) {
  if (weight == DType::F16) return sweep_in_groups<Fusing<Undone<Weight<F16>>>, 6, 4, 2, 1>(sweep);
  if (weight == DType::BF16) return sweep_in_groups<Fusing<Undone<Weight<BF16>>>, 6, 4, 2, 1>(sweep);
  return sweep_in_groups<Fusing<Undone<Weight<F32>>>, 6, 4, 2, 1>(sweep);
}

constexpr RowOps kOps{record_row, undo_row,    mark_nonzero, hash_steps_avx512, encode_corrections_avx512,
                      undo_sweep, record_sweep};

}  // namespace

const RowOps* avx512_row_ops() {
  return &kOps;
}

}  // namespace lora_mmap

#else

namespace lora_mmap {

const RowOps* avx512_row_ops() {
  return nullptr;
}

}  // namespace lora_mmap

#endif
