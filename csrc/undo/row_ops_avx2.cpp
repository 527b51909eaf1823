#include "undo/row_ops.h"

#if defined(__AVX2__)

#include "fuse/format_avx2.h"
#include "fuse/tile.h"
#include "undo/recorded_rows.h"

namespace lora_mmap {
namespace {

template <int Nbytes>
struct Integers;

template <>
struct Integers<2> {
  static __m256i subtract(__m256i a, __m256i b) { return _mm256_sub_epi16(a, b); }
};

template <>
struct Integers<4> {
  static __m256i subtract(__m256i a, __m256i b) { return _mm256_sub_epi32(a, b); }
};

template <class Format>
struct Recorded : Weight<Format> {
  using Row = typename Format::Row;
  using Ints = Integers<sizeof(typename Format::Element)>;
  static constexpr int kParts = Weight<Format>::kParts;

  static Row keep(Row guess, const Row& fused) {
    for (int i = 0; i < kParts; ++i)
      guess.part[i] =
          _mm256_blendv_epi8(guess.part[i], fused.part[i], Weight<Format>::non_finite(fused.part[i]));
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
  using Vec = typename Format::Vec;
  static Vec add(Vec value, Vec sum) { return Format::subtract(value, sum); }
  static typename Format::Row round(Vec low, Vec high) { return Format::guess(low, high); }
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

// A bit for each of 32 steps of 16 bits.
uint32_t zeros_of_32(const uint16_t* steps) {
  const __m256i zero = _mm256_setzero_si256();
  const __m256i low = _mm256_cmpeq_epi16(load_bits(steps), zero);
  const __m256i high = _mm256_cmpeq_epi16(load_bits(steps + 16), zero);
  const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(low, high), 0xD8);
  return static_cast<uint32_t>(_mm256_movemask_epi8(bytes));
}

uint32_t zeros_of_8(const uint32_t* steps) {
  const __m256i equal = _mm256_cmpeq_epi32(load_bits(steps), _mm256_setzero_si256());
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(equal)));
}

void mark_nonzero(DType weight, const void* steps, int64_t count, uint64_t* nonzero) {
  for (int64_t i = 0; i < count; i += 64) {
    uint64_t zeros = 0;
    if (weight == DType::F32) {
      const auto* from = static_cast<const uint32_t*>(steps) + i;
      for (int k = 0; k < 64; k += 8) zeros |= uint64_t{zeros_of_8(from + k)} << k;
    } else {
      const auto* from = static_cast<const uint16_t*>(steps) + i;
      zeros = zeros_of_32(from) | uint64_t{zeros_of_32(from + 32)} << 32;
    }
    *nonzero++ = ~zeros;
  }
}

void hash_steps_avx2(uint32_t* lanes, const HashedRows& from) {
  constexpr int kRegisters = kHashLanes / 8;
  const __m256i factor = _mm256_set1_epi32(static_cast<int32_t>(kHashFactor));
  auto* state = reinterpret_cast<__m256i*>(lanes);
  __m256i h[kRegisters];
  for (int i = 0; i < kRegisters; ++i) h[i] = _mm256_load_si256(state + i);
  for (int64_t m = 0; m < from.rows; ++m) {
    const std::byte* data = from.data + m * from.stride_nbytes;
    for (size_t step = 0; step < from.steps; ++step, data += kHashStepNbytes)
#pragma GCC unroll 8
      for (int i = 0; i < kRegisters; ++i) {
        const __m256i mixed = _mm256_mullo_epi32(_mm256_xor_si256(h[i], load_bits(data + 32 * i)), factor);
        h[i] = _mm256_xor_si256(mixed, _mm256_srli_epi32(mixed, 15));
      }
  }
  for (int i = 0; i < kRegisters; ++i) _mm256_store_si256(state + i, h[i]);
}

bool undo_sweep(DType weight, const Sweep& sweep) {
  if (weight == DType::F16) return sweep_in_groups<Undone<Weight<F16>>, 6, 4, 2, 1>(sweep);
  if (weight == DType::BF16) return sweep_in_groups<Undone<Weight<BF16>>, 6, 4, 2, 1>(sweep);
  return sweep_in_groups<Undone<Weight<F32>>, 6, 4, 2, 1>(sweep);
}

constexpr RowOps kOps{record_row,         undo_row,   mark_nonzero, hash_steps_avx2,
                      encode_corrections, undo_sweep, nullptr};

}  // namespace

const RowOps* avx2_row_ops() {
  return &kOps;
}

}  // namespace lora_mmap

#else

namespace lora_mmap {

const RowOps* avx2_row_ops() {
  return nullptr;
}

}  // namespace lora_mmap

#endif  // __AVX2__
