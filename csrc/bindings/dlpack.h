// Memory handed to a tensor library as a DLPack capsule: facts of the ABI (dmlc/dlpack, dlpack.h 1.1).
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "base/dtype.h"

namespace lora_mmap::bindings::dlpack {

struct DataType {
  uint8_t code = 0;
  uint8_t bits = 0;
  uint16_t lanes = 1;
};

// How DLPack spells an element type; nothing for those that are packed below a byte.
std::optional<DataType> data_type(DType dtype);

// A capsule for one contiguous tensor in CPU memory that its consumer may write to. `owner` is kept until the
// consumer drops the tensor, which may happen on any thread and without the GIL. `data` need not be aligned.
// Raises Python's own error when memory is out.
pybind11::object capsule(std::shared_ptr<const void> owner, std::byte* data, DataType type,
                         std::span<const int64_t> shape);

}  // namespace lora_mmap::bindings::dlpack
