// A job of one column as a job of one row.
#pragma once

#include "fuse/job.h"

namespace lora_mmap {

// True where nothing but whole matrices falls on a single column, such as a bias seen as [n, 1]: any order of
// its elements gives the same bits.
bool is_column(const Job& job);

// The same job with rows and columns exchanged. Needs is_column.
Job as_row(const Job& column);

}  // namespace lora_mmap
