// RAII: round to nearest even, subnormals kept on input and output, all floating-point traps masked; the
// calling thread's own settings (sticky flags included) come back on destruction. Affects one thread only.
#pragma once

#include <cstdint>

namespace lora_mmap {

class FloatEnv {
 public:
  FloatEnv();
  ~FloatEnv();
  FloatEnv(const FloatEnv&) = delete;
  FloatEnv& operator=(const FloatEnv&) = delete;

 private:
  uint64_t saved_;
};

}  // namespace lora_mmap
