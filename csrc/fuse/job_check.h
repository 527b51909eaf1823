// What every way of fusing asks of its jobs.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "fuse/gains.h"
#include "fuse/job.h"

namespace lora_mmap {

// Throws Error(Fault::argument) if a job makes no sense: negative sizes or ranks, types that are no weight's
// or no factor's, null pointers and strides of 0 where there is something to read.
void check_jobs(const std::vector<Job>& jobs);

// The same for norms. What lies on a device is not looked into: a column of no group adds to none there.
enum class Where { host, device };
void check_gains(const std::vector<Gains>& jobs, Where where);

// The same for one job, whose weight and base the caller has looked at; messages begin with `where`.
void check_terms(const std::string& where, const Job& job);

// Throws Error(Fault::argument) about job number `job` of fuse().
[[noreturn]] void refuse_job(size_t job, const std::string& what);

}  // namespace lora_mmap
