#include "cuda/driver/failure.h"

#include "base/error.h"
#include "cuda/driver/driver.h"

namespace lora_mmap::cuda {
namespace {

thread_local const char* calling_function = "cuda";
thread_local int calling_ordinal = -1;

}  // namespace

Calling::Calling(const char* function, int ordinal)
    : outer_function_(calling_function), outer_ordinal_(calling_ordinal) {
  calling_function = function;
  calling_ordinal = ordinal;
}

Calling::~Calling() {
  calling_function = outer_function_;
  calling_ordinal = outer_ordinal_;
}

const char* Calling::function() {
  return calling_function;
}

std::string Calling::prefix() {
  return std::string("[") + calling_function + "] ";
}

std::string Calling::device() {
  return calling_ordinal < 0 ? std::string() : "cuda:" + std::to_string(calling_ordinal);
}

std::string failure_text(const Driver& driver, CUresult result, const char* call) {
  const char* name = nullptr;
  const char* text = nullptr;
  if (driver.cuGetErrorName.result(result, &name) != CUDA_SUCCESS) name = nullptr;
  if (driver.cuGetErrorString.result(result, &text) != CUDA_SUCCESS) text = nullptr;
  const std::string device = Calling::device();
  return Calling::prefix() + call + " failed" + (device.empty() ? "" : " on " + device) + ": " +
         (name ? name : "CUDA error " + std::to_string(result)) + " (" + (text ? text : "no description") +
         ")";
}

void fail(CUresult result, const char* call) {
  throw Error(Fault::cuda, failure_text(driver(), result, call));
}

}  // namespace lora_mmap::cuda
