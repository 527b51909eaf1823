#include "undo/corrections_avx512.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__) && \
    defined(__BMI2__)

// GCC 12's own header initialises registers with themselves and warns of it (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include "undo/coded_blocks.h"

namespace lora_mmap {
namespace {

constexpr int64_t kLanes = 16;

__mmask16 first_lanes(int64_t count) {
  return static_cast<__mmask16>(count >= kLanes ? 0xFFFF : (1u << count) - 1);
}

// Zeros from `count` on.
__m512i sixteen(const uint32_t* from, int64_t count) {
  return _mm512_maskz_loadu_epi32(first_lanes(count), from);
}

// With their sign.
__m512i sixteen_steps(const uint16_t* from) {
  return _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
__m512i sixteen_steps(const uint32_t* from) {
  return _mm512_loadu_si512(from);
}

// As folded() has it: 16 bits with their sign stay below 2^16.
__m512i fold(__m512i steps) {
  return _mm512_xor_si512(_mm512_slli_epi32(steps, 1), _mm512_srai_epi32(steps, 31));
}

void store_lanes(uint16_t* to, __m512i lanes) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(lanes));
}
void store_lanes(uint32_t* to, __m512i lanes) {
  _mm512_storeu_si512(to, lanes);
}

__mmask16 wider_than(__m512i lanes, int width) {
  return _mm512_cmpgt_epu32_mask(lanes, _mm512_set1_epi32(static_cast<int32_t>((uint32_t{1} << width) - 1)));
}

int64_t count_of(uint32_t marks) {
  return __builtin_popcount(marks);
}

// Numbers of 32 bits, whatever the weight's are.
struct Avx512 {
  // Blocks together: a loop for each would end where nobody foresees it.
  template <class Number>
  class Gathered {
   public:
    // Sixteen at a time, where there is one: as a rule there are few.
    Gathered(const Number* steps, const uint64_t* nonzero, int64_t blocks) {
      const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
      int64_t count = 0;
      for (int64_t word = 0; word < blocks * kWords; word += 16) {
        uint64_t left = groups_with_any(nonzero + word, blocks * kWords - word);
        for (; left; left &= left - 1) {
          const int64_t at = word * 64 + __builtin_ctzll(left) * kLanes;
          const auto marks = static_cast<__mmask16>(nonzero[at / 64] >> at % 64);
          const __m512i index = _mm512_add_epi32(lanes, _mm512_set1_epi32(static_cast<int32_t>(at)));
          const __m512i found = _mm512_maskz_compress_epi32(marks, sixteen_steps(steps + at));
          const __m128i where = _mm512_cvtepi32_epi8(_mm512_maskz_compress_epi32(marks, index));
          _mm512_storeu_si512(numbers_ + count, fold(found));
          _mm_storeu_si128(reinterpret_cast<__m128i*>(positions_ + count), where);
          count += count_of(marks);
        }
      }
    }

    Sparse<uint32_t> take(const Number*, const uint64_t* nonzero) {
      const int64_t set = __builtin_popcountll(nonzero[0]) + __builtin_popcountll(nonzero[1]) +
                          __builtin_popcountll(nonzero[2]) + __builtin_popcountll(nonzero[3]);
      const Sparse<uint32_t> sparse{numbers_ + taken_, positions_ + taken_, set,
                                    any_of(numbers_ + taken_, set)};
      taken_ += set;
      return sparse;
    }

   private:
    // A bit for each group of sixteen among the first sixteen words.
    static uint64_t groups_with_any(const uint64_t* words, int64_t count) {
      const auto first = static_cast<__mmask16>(count >= 16 ? 0xFFFF : (1u << count) - 1);
      const auto low = static_cast<__mmask8>(first), high = static_cast<__mmask8>(first >> 8);
      const __m512i a = _mm512_maskz_loadu_epi64(low, words);
      const __m512i b = _mm512_maskz_loadu_epi64(high, words + 8);
      return _mm512_test_epi16_mask(a, a) | uint64_t{_mm512_test_epi16_mask(b, b)} << 32;
    }

    static uint32_t any_of(const uint32_t* numbers, int64_t set) {
      __m512i all = _mm512_setzero_si512();
      for (int64_t i = 0; i < set; i += kLanes) all = _mm512_or_si512(all, sixteen(numbers + i, set - i));
      return static_cast<uint32_t>(_mm512_reduce_or_epi32(all));
    }

    int64_t taken_ = 0;
    static constexpr int64_t kRoom = kGathered * kCorrectionBlock + kCorrectionBlock / 8;
    uint32_t numbers_[kRoom];
    uint8_t positions_[kRoom];
  };

  template <class>
  class Wider {
   public:
    Wider(const uint32_t* numbers, int64_t set) : numbers_(numbers), set_(set) {}

    int64_t than(int width) const {
      int64_t count = 0;
      for (int64_t i = 0; i < set_; i += kLanes)
        count += count_of(wider_than(sixteen(numbers_ + i, set_ - i), width));
      return count;
    }

   private:
    const uint32_t* numbers_;
    int64_t set_;
  };

  // Eight numbers of up to 8 bits fill whole bytes.
  static uint8_t* put_numbers(const uint32_t* numbers, int64_t set, int width, uint8_t* out) {
    uint8_t* end = out + bytes_of_bits(set * width);
    if (width > 8) {
      put_wide(numbers, set, width, out, end);
      return end;
    }
    const __m512i one = _mm512_set1_epi32(1);
    const __m512i escape = _mm512_set1_epi32((1 << width) - 1);
    const uint64_t kept = 0x0101010101010101 * ((uint64_t{1} << width) - 1);
    for (int64_t i = 0; i < set; i += kLanes, out += 2 * width) {
      const __m512i less_one = _mm512_sub_epi32(_mm512_max_epu32(sixteen(numbers + i, set - i), one), one);
      const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_min_epu32(less_one, escape));
      const uint64_t low = _pext_u64(static_cast<uint64_t>(_mm_cvtsi128_si64(bytes)), kept);
      const uint64_t high = _pext_u64(static_cast<uint64_t>(_mm_extract_epi64(bytes, 1)), kept);
      std::memcpy(out, &low, sizeof(low));
      std::memcpy(out + width, &high, sizeof(high));
    }
    return end;
  }

  template <class Number>
  static uint8_t* put_escaped(const uint32_t* numbers, int64_t set, int width, uint8_t* out) {
    for (int64_t i = 0; i < set; i += kLanes) {
      const __m512i lanes = sixteen(numbers + i, set - i);
      const __mmask16 wide = wider_than(lanes, width);
      store_lanes(reinterpret_cast<Number*>(out), _mm512_maskz_compress_epi32(wide, lanes));
      out += count_of(wide) * static_cast<int64_t>(sizeof(Number));
    }
    return out;
  }

 private:
  // A number after the other: so wide are few.
  static void put_wide(const uint32_t* numbers, int64_t set, int width, uint8_t* out, uint8_t* end) {
    const uint64_t escape = (uint64_t{1} << width) - 1;
    uint64_t waiting = 0;
    int filled = 0;
    for (int64_t i = 0; i < set; ++i) {
      const uint64_t less_one = uint64_t{numbers[i]} - 1;
      waiting |= (less_one < escape ? less_one : escape) << filled;
      for (filled += width; filled >= 8; filled -= 8, waiting >>= 8) *out++ = static_cast<uint8_t>(waiting);
    }
    if (out < end) *out = static_cast<uint8_t>(waiting);
  }
};

}  // namespace

size_t encode_corrections_avx512(DType weight, const void* steps, const uint64_t* nonzero, int64_t count,
                                 uint8_t* out) {
  if (weight == DType::F32)
    return encode_as<Avx512>(static_cast<const uint32_t*>(steps), nonzero, count, out);
  return encode_as<Avx512>(static_cast<const uint16_t*>(steps), nonzero, count, out);
}

}  // namespace lora_mmap

#endif
