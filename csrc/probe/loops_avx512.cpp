#include "probe/loops.h"

#if defined(__AVX512F__)

#include <immintrin.h>

namespace lora_mmap {
namespace {

double fma_avx512(int64_t steps) {
  constexpr int kChains = 24;  // as many as two tiles have
  __m512 acc[kChains];
  for (__m512& a : acc) a = _mm512_setzero_ps();
  const __m512 half = _mm512_set1_ps(0.5f);
  const __m512 one = _mm512_set1_ps(1.0f);
  for (int64_t i = 0; i < steps; ++i) {
#pragma GCC unroll 24
    for (__m512& a : acc) a = _mm512_fmadd_ps(a, half, one);
  }
  for (int i = 1; i < kChains; ++i) acc[0] = _mm512_add_ps(acc[0], acc[i]);
  volatile float sink = _mm512_cvtss_f32(acc[0]);
  (void)sink;
  return 2.0 * 16 * kChains * static_cast<double>(steps);
}

void flip_avx512(std::byte* memory, size_t nbytes) {
  const __m512i ones = _mm512_set1_epi32(0x01010101);
  for (std::byte* end = memory + nbytes; memory != end; memory += sizeof(__m512i))
    _mm512_store_si512(memory, _mm512_xor_si512(_mm512_load_si512(memory), ones));
}

void flip_streaming_avx512(std::byte* memory, size_t nbytes) {
  const __m512i ones = _mm512_set1_epi32(0x01010101);
  for (std::byte* end = memory + nbytes; memory != end; memory += sizeof(__m512i))
    _mm512_stream_si512(reinterpret_cast<__m512i*>(memory),
                        _mm512_xor_si512(_mm512_load_si512(memory), ones));
  _mm_sfence();
}

constexpr ProbeLoops kAvx512{"avx512", fma_avx512, flip_avx512, flip_streaming_avx512};

}  // namespace

const ProbeLoops* probe_loops_avx512() {
  return &kAvx512;
}

}  // namespace lora_mmap

#else

namespace lora_mmap {

const ProbeLoops* probe_loops_avx512() {
  return nullptr;
}

}  // namespace lora_mmap

#endif  // __AVX512F__
