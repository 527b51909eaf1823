#include "probe/loops.h"

#if defined(__AVX2__)

#include <immintrin.h>

namespace lora_mmap {
namespace {

double fma_avx2(int64_t steps) {
  constexpr int kChains = 12;  // as many as a tile has; latency 4 on two pipes needs 8
  __m256 acc[kChains];
  for (__m256& a : acc) a = _mm256_setzero_ps();
  const __m256 half = _mm256_set1_ps(0.5f);
  const __m256 one = _mm256_set1_ps(1.0f);
  for (int64_t i = 0; i < steps; ++i) {
#pragma GCC unroll 12
    for (__m256& a : acc) a = _mm256_fmadd_ps(a, half, one);
  }
  for (int i = 1; i < kChains; ++i) acc[0] = _mm256_add_ps(acc[0], acc[i]);
  volatile float sink = _mm256_cvtss_f32(acc[0]);
  (void)sink;
  return 2.0 * 8 * kChains * static_cast<double>(steps);
}

void flip_avx2(std::byte* memory, size_t nbytes) {
  const __m256i ones = _mm256_set1_epi8(1);
  __m256i* at = reinterpret_cast<__m256i*>(memory);
  for (const __m256i* end = at + nbytes / sizeof(__m256i); at != end; at += 2) {
    _mm256_store_si256(at, _mm256_xor_si256(_mm256_load_si256(at), ones));
    _mm256_store_si256(at + 1, _mm256_xor_si256(_mm256_load_si256(at + 1), ones));
  }
}

void flip_streaming_avx2(std::byte* memory, size_t nbytes) {
  const __m256i ones = _mm256_set1_epi8(1);
  __m256i* at = reinterpret_cast<__m256i*>(memory);
  for (const __m256i* end = at + nbytes / sizeof(__m256i); at != end; at += 2) {
    const __m256i low = _mm256_xor_si256(_mm256_load_si256(at), ones);
    const __m256i high = _mm256_xor_si256(_mm256_load_si256(at + 1), ones);
    _mm256_stream_si256(at, low);
    _mm256_stream_si256(at + 1, high);
  }
  _mm_sfence();
}

constexpr ProbeLoops kAvx2{"avx2", fma_avx2, flip_avx2, flip_streaming_avx2};

}  // namespace

const ProbeLoops* probe_loops_avx2() {
  return &kAvx2;
}

}  // namespace lora_mmap

#else

namespace lora_mmap {

const ProbeLoops* probe_loops_avx2() {
  return nullptr;
}

}  // namespace lora_mmap

#endif  // __AVX2__
