// The tuples that a plan is handed over in (lora_mmap/native_types.py), read into the native structs.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

#include "branch/factor_write.h"
#include "fuse/copy.h"
#include "fuse/gains.h"
#include "fuse/job.h"
#include "undo/step.h"

namespace lora_mmap::bindings {

// Need the GIL. Throw Error(Fault::argument), or what Python raises for a number that does not fit.
std::vector<Job> read_jobs(const pybind11::list& jobs);
std::vector<Gains> read_gains(const pybind11::list& jobs);
std::vector<Rect> read_rects(const pybind11::list& rects);
std::vector<Step> read_steps(const pybind11::list& steps);
std::vector<FactorWrite> read_factor_writes(const pybind11::list& jobs);

}  // namespace lora_mmap::bindings
