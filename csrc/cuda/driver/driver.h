// The CUDA driver of this machine, loaded when it is first asked for. Nothing links to it.
#pragma once

#include <string>

#include "cuda/driver/api.h"
#include "cuda/driver/failure.h"

namespace lora_mmap::cuda {

template <class Signature>
class DriverFunction;

// One entry of the driver. Called, it throws what check() throws; result() leaves that to the caller.
template <class... Args>
class DriverFunction<CUresult(Args...)> {
 public:
  explicit DriverFunction(const char* name) : name_(name) {}
  void operator()(Args... args) const { check(address_(args...), name_); }
  [[nodiscard]] CUresult result(Args... args) const { return address_(args...); }
  bool missing() const { return address_ == nullptr; }

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

  // Fills the table from what dlopen returned. Returns the first name that is missing, null if none is.
  const char* find_all(void* library);
};

// The driver, loaded and initialised at the first call (LORA_MMAP_LIBCUDA: the one to take; otherwise
// libcuda.so.1, then WSL's). Throws Error(Fault::cuda) where there is none, it is too old, it finds no
// device, or this process was forked from one that had it loaded. Thread-safe; never unloaded.
const Driver& driver();

// The same for destructors: null where driver() would throw or nobody has called it yet.
const Driver* loaded_driver() noexcept;

// What is known of the driver, for people: loads it, creates no context, never throws.
struct DriverReport {
  bool loaded = false;
  int version = 0;  // as Driver's
  int devices = 0;
  std::string why;  // why there is none, or why it cannot be used; empty when all is well
};
DriverReport driver_report();

}  // namespace lora_mmap::cuda
