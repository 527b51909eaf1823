// The table of lora_mmap_step: weights from what stands in them to what is wanted there, and what is kept for
// the way back in memory of the device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/dtype.h"
#include "cuda/table.h"
#include "fuse/job.h"

namespace lora_mmap::cuda {

// How a record of one rectangle lies in memory: hashes and states of its tiles, then the corrections.
struct RecordLayout {
  uint64_t tiles;
  uint64_t head_nbytes;      // what is not corrections
  uint64_t capacity_nbytes;  // for those, a multiple of 4
  uint64_t nbytes() const { return head_nbytes + capacity_nbytes; }
};

// Throws Error(Fault::argument) for negative sizes or too many tiles, for types that are no weight's, and for
// corrections of F64.
RecordLayout record_layout(int64_t rows, int64_t cols, DType dtype, uint64_t corrections_nbytes);

// A record on the device: zeros when it is new.
struct RecordMemory {
  const void* address;
  uint64_t capacity_nbytes;  // as its layout's
  bool corrections;          // whether it keeps those
};

// What terms made of a weight, or are to make of it.
struct StepLayer {
  Job job;          // with the weight's rectangle and, as base, what `has_values` says
  bool has_values;  // old: pristine values; new: what the terms are added to. Otherwise the base is not
                    // looked at
  RecordMemory record;
};

struct StepOut {
  void* address;
  int64_t row_stride;
  int64_t col_stride;
};

// One rectangle; see csrc/cuda/kernels/step.cuh for what is done to its tiles.
struct DeviceStep {
  std::optional<StepLayer> old;   // absent: the weight holds its pristine values
  std::optional<StepLayer> next;  // absent: it is to hold those
  std::optional<StepOut> out;     // where those go, and the weight keeps what it has; without `next`
};

// Flag i (of StepFlags) belongs to step i. Throws Error(Fault::argument), as fuse() does and where a step
// asks for what cannot be: see docs/cuda.md.
Table step_table(const std::vector<DeviceStep>& steps, bool force);

}  // namespace lora_mmap::cuda
