#include "probe/loops.h"

#include <cmath>
#include <cstring>

namespace lora_mmap {
namespace {

double fma_plain(int64_t steps) {
  constexpr int kChains = 64;
  float acc[kChains] = {};
  for (int64_t i = 0; i < steps; ++i)
    for (float& a : acc) a = std::fma(a, 0.5f, 1.0f);
  volatile float sink = 0;
  for (const float a : acc) sink = sink + a;
  return 2.0 * kChains * static_cast<double>(steps);
}

void flip_plain(std::byte* memory, size_t nbytes) {
  for (size_t i = 0; i < nbytes; i += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, memory + i, sizeof(word));
    word ^= 0x0101010101010101;
    std::memcpy(memory + i, &word, sizeof(word));
  }
}

constexpr ProbeLoops kPlain{"scalar", fma_plain, flip_plain, nullptr};

std::vector<const ProbeLoops*> find_loops() {
  std::vector<const ProbeLoops*> found;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && probe_loops_avx512()) found.push_back(probe_loops_avx512());
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && probe_loops_avx2())
    found.push_back(probe_loops_avx2());
#endif
  found.push_back(&kPlain);
  return found;
}

}  // namespace

const std::vector<const ProbeLoops*>& probe_loops() {
  static const std::vector<const ProbeLoops*> loops = find_loops();
  return loops;
}

}  // namespace lora_mmap
