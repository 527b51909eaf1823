#include "bindings/bindings.h"

namespace lora_mmap::bindings {

void register_keys(pybind11::module_&) {}

}  // namespace lora_mmap::bindings
