// The tuples that steps on a device are handed over in (lora_mmap/native_types.py), read into native structs.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

#include "cuda/step_table.h"

namespace lora_mmap::bindings {

// Needs the GIL. Throws as read_jobs() does, and what pybind11 throws for a tuple of another form.
std::vector<cuda::DeviceStep> read_device_steps(const pybind11::list& steps);

}  // namespace lora_mmap::bindings
