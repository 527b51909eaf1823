#include "bindings/bindings.h"

namespace lora_mmap::bindings {

void register_safetensors(pybind11::module_&) {}

}  // namespace lora_mmap::bindings
