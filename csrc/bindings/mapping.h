// A mapping as Python sees it: a writable buffer, shared with every tensor made of it.
#pragma once

#include "bindings/exported_buffer.h"
#include "safetensors/mapping.h"

namespace lora_mmap::bindings {

using ExportedMapping = ExportedBuffer<safetensors::Mapping>;

}  // namespace lora_mmap::bindings
