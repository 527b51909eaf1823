#include "base/float_env.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#elif !defined(__aarch64__)
#include <cfenv>
#endif

namespace lora_mmap {

#if defined(__x86_64__)

namespace {
constexpr unsigned kNearestNoFlush = 0x1F80;  // MXCSR at reset: every trap masked, nearest, FTZ = DAZ = 0
}

FloatEnv::FloatEnv() : saved_(_mm_getcsr()) {
  _mm_setcsr(kNearestNoFlush);
}

FloatEnv::~FloatEnv() {
  _mm_setcsr(static_cast<unsigned>(saved_));
}

#elif defined(__aarch64__)

// FPCR at zero: nearest, FZ = FZ16 = AH = FIZ = 0, no traps, NaNs propagated.
FloatEnv::FloatEnv() {
  asm volatile("mrs %0, fpcr" : "=r"(saved_));
  asm volatile("msr fpcr, %0" : : "r"(uint64_t{0}));
}

FloatEnv::~FloatEnv() {
  asm volatile("msr fpcr, %0" : : "r"(saved_));
}

#else

FloatEnv::FloatEnv() : saved_(static_cast<uint64_t>(std::fegetround())) {
  std::fesetround(FE_TONEAREST);
}

FloatEnv::~FloatEnv() {
  std::fesetround(static_cast<int>(saved_));
}

#endif

}  // namespace lora_mmap
