// The CUDA driver of this machine, loaded when it is first asked for. Nothing links to it.
#pragma once

#include <string>

#include "cuda/driver/api.h"

namespace lora_mmap::cuda {

// Who calls the driver, and for which device: what the errors of this thread's calls name. Innermost wins.
class Calling {
 public:
  Calling(const char* function, int ordinal);  // `function` must outlive it; ordinal -1: no device yet
  ~Calling();
  Calling(const Calling&) = delete;
  Calling& operator=(const Calling&) = delete;

  static const char* function();
  static int ordinal();

 private:
  const char* outer_function_;
  int outer_ordinal_;
};

// Throws Error(Fault::cuda) unless `result` is CUDA_SUCCESS: "[function] call failed on cuda:0: NAME (text)".
void check(CUresult result, const char* call);

template <class Signature>
class DriverFunction;

// One entry of the driver. Called, it throws what check() throws; result() leaves that to the caller.
template <class... Args>
class DriverFunction<CUresult(Args...)> {
 public:
  explicit DriverFunction(const char* name) : name_(name) {}
  void operator()(Args... args) const { check(address_(args...), name_); }
  [[nodiscard]] CUresult result(Args... args) const { return address_(args...); }

 private:
  friend struct Driver;
  const char* name_;
  CUresult (*address_)(Args...) = nullptr;
};

struct Driver {
#define LORA_MMAP_CUDA_MEMBER(name, symbol, version, parameters) \
  DriverFunction<CUresult parameters> name{#name};
  LORA_MMAP_CUDA_FUNCTIONS(LORA_MMAP_CUDA_MEMBER)
#undef LORA_MMAP_CUDA_MEMBER

  int version = 0;  // 1000 * major + 10 * minor: the CUDA version it speaks

 private:
  friend class DriverLibrary;
  // Fills the table from the library that dlopen gave `library` for. Returns the first name that is missing.
  const char* find_all(void* library);
};

// The driver, loaded and initialised at the first call (LORA_MMAP_LIBCUDA: a path to take it from; then
// libcuda.so.1; then WSL's). Throws Error(Fault::cuda) where there is none, it is too old, it finds no
// device, or this process was forked from one that had it loaded. Thread-safe; never unloaded.
const Driver& driver();

// The same for destructors: null where driver() would throw or nobody has called it yet.
const Driver* loaded_driver() noexcept;

}  // namespace lora_mmap::cuda
