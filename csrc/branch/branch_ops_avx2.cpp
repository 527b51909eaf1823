#include "branch/branch_ops_avx2.h"

#if defined(__AVX2__) && defined(__F16C__)

#include <cstring>

#include "base/elements_avx2.h"
#include "branch/tile_layout.h"

namespace lora_mmap {
namespace {

constexpr int64_t kAtOnce = 8;

// The smallest magnitude, as bits of fp32, that is infinite when it is rounded: a tie goes to even, away from
// the largest number. Every NaN is above it.
template <class To>
constexpr int32_t kInfinite = 0x7F800000;
template <>
constexpr int32_t kInfinite<F16x8> = 0x477FF000;
template <>
constexpr int32_t kInfinite<BF16x8> = 0x7F7F8000;

template <class From, class To>
__m256i scale_eight(const typename From::Bits* from, typename To::Bits* to, __m256 scale) {
  const __m256 product = _mm256_mul_ps(From::load(from), scale);
  To::store(to, product);
  return _mm256_and_si256(_mm256_castps_si256(product), _mm256_set1_epi32(0x7FFFFFFF));
}

template <class From, class To>
bool scaled_row(const void* from, void* to, int64_t count, float scale) {
  const auto* in = static_cast<const typename From::Bits*>(from);
  auto* out = static_cast<typename To::Bits*>(to);
  const __m256 scales = _mm256_set1_ps(scale);
  __m256i largest = _mm256_setzero_si256();
  int64_t i = 0;
  for (; i + kAtOnce <= count; i += kAtOnce)
    largest = _mm256_max_epi32(largest, scale_eight<From, To>(in + i, out + i, scales));
  if (i < count) {
    typename From::Bits last_in[kAtOnce] = {};
    typename To::Bits last_out[kAtOnce];
    std::memcpy(last_in, in + i, static_cast<size_t>(count - i) * sizeof(*in));
    largest = _mm256_max_epi32(largest, scale_eight<From, To>(last_in, last_out, scales));
    std::memcpy(out + i, last_out, static_cast<size_t>(count - i) * sizeof(*out));
  }
  const __m256i infinite = _mm256_cmpgt_epi32(largest, _mm256_set1_epi32(kInfinite<To> - 1));
  return !_mm256_testz_si256(infinite, infinite);
}

template <class From>
ScaledRow scaled_row_to(DType to) {
  switch (to) {
    case DType::F16:
      return scaled_row<From, F16x8>;
    case DType::BF16:
      return scaled_row<From, BF16x8>;
    default:
      return scaled_row<From, F32x8>;
  }
}

ScaledRow find_scaled_row(DType from, DType to) {
  switch (from) {
    case DType::F16:
      return scaled_row_to<F16x8>(to);
    case DType::BF16:
      return scaled_row_to<BF16x8>(to);
    default:
      return scaled_row_to<F32x8>(to);
  }
}

// The pairs 0 4 2 6 | 1 5 3 7 of a row: as the tile has them, two by two, between those of the row 8 below.
__m256i pairs(const std::byte* row) {
  const __m256i order = _mm256_setr_epi32(0, 4, 2, 6, 1, 5, 3, 7);
  return _mm256_permutevar8x32_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row)), order);
}

struct ThroughCaches {
  static void store(__m256i* to, __m256i value) { _mm256_storeu_si256(to, value); }
};

// Nothing of a whole line has to be read before it is written. Needs 32-byte alignment.
struct PastCaches {
  static void store(__m256i* to, __m256i value) { _mm256_stream_si256(to, value); }
};

template <class Way>
void pack_tile(const std::byte* const* rows, int64_t offset, std::byte* to) {
  constexpr int64_t kLine = 64;
  for (int64_t n = 0; n < kTile / 2; ++n) {
    const __m256i upper = pairs(rows[n] + offset);
    const __m256i lower = pairs(rows[n + kTile / 2] + offset);
    auto* line = reinterpret_cast<__m256i*>(to + n * kLine);
    Way::store(line, _mm256_unpacklo_epi64(upper, lower));
    Way::store(line + 1, _mm256_unpackhi_epi64(upper, lower));
  }
}

void pack_tiles(const std::byte* const* rows, int64_t offset, int64_t count, std::byte* to, int64_t pitch) {
  constexpr int64_t kRowNbytes = kTile * 2;
  for (int64_t i = 0; i < count; ++i, offset += kRowNbytes, to += pitch) {
    if (reinterpret_cast<uintptr_t>(to) % sizeof(__m256i) == 0)
      pack_tile<PastCaches>(rows, offset, to);
    else
      pack_tile<ThroughCaches>(rows, offset, to);
  }
}

}  // namespace

const BranchOps* avx2_branch_ops() {
  static const BranchOps ops{find_scaled_row, pack_tiles, scalar_branch_ops().pack_tiles_32,
                             [] { _mm_sfence(); }};
  return &ops;
}

}  // namespace lora_mmap

#else

namespace lora_mmap {

const BranchOps* avx2_branch_ops() {
  return nullptr;
}

}  // namespace lora_mmap

#endif
