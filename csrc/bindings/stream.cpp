#include "bindings/bindings.h"

namespace lora_mmap::bindings {

void register_stream(pybind11::module_&) {}

}  // namespace lora_mmap::bindings
