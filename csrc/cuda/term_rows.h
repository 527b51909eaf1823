// Jobs and terms as the tables have them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/kernels/table.h"
#include "fuse/job.h"

namespace lora_mmap::cuda {

Type type_of(DType dtype);

// A term of any kind. Throws Error(Fault::argument) about job number `job` for a rank that the kernels do not
// count.
AnyTermRow any_term_row(const Term& term, size_t job);

// Throws Error(Fault::argument) about job number `job` for sizes that the kernels do not count.
void check_extent(int64_t rows, int64_t cols, size_t job);

}  // namespace lora_mmap::cuda
