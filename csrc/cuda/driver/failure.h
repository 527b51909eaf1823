// What an error of the driver says: who called which function for which device, and what came back.
#pragma once

#include <string>

#include "cuda/driver/api.h"

namespace lora_mmap::cuda {

struct Driver;

// Who calls the driver, and for which device: what the errors of this thread's calls name. Innermost wins.
class Calling {
 public:
  Calling(const char* function, int ordinal);  // `function` must outlive it; ordinal -1: no device yet
  ~Calling();
  Calling(const Calling&) = delete;
  Calling& operator=(const Calling&) = delete;

  static const char* function();
  static std::string prefix();  // "[function] "
  static std::string device();  // "cuda:0", or "" where there is none yet

 private:
  const char* outer_function_;
  int outer_ordinal_;
};

// "[function] call failed on cuda:0: NAME (text)", in the words of `driver`.
std::string failure_text(const Driver& driver, CUresult result, const char* call);

// Throws Error(Fault::cuda) with failure_text().
[[noreturn]] void fail(CUresult result, const char* call);

inline void check(CUresult result, const char* call) {
  if (result != CUDA_SUCCESS) fail(result, call);
}

}  // namespace lora_mmap::cuda
