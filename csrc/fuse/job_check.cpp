#include "fuse/job_check.h"

#include "base/error.h"
#include "fuse/weight_format.h"

namespace lora_mmap {
namespace {

void check(const Term& term, size_t job, bool empty) {
  if (term.rank < 0) refuse_job(job, "rank is " + std::to_string(term.rank));
  for (const DType dtype : {term.down_dtype, term.up_dtype})
    if (!is_factor_dtype(dtype)) refuse_job(job, "a factor of type " + std::string(dtype_name(dtype)));
  if (!empty && term.rank > 0 && (!term.down || !term.up)) refuse_job(job, "a factor is a null pointer");
}

void check(const Job& job, size_t index) {
  const bool empty = job.rows == 0 || job.cols == 0;
  if (job.rows < 0 || job.cols < 0) refuse_job(index, "negative size");
  if (!is_weight_dtype(job.dtype))
    refuse_job(index,
               "a weight of type " + std::string(dtype_name(job.dtype)) + ", expected F16, BF16, F32 or F64");
  if (!empty && (!job.weight || !job.base)) refuse_job(index, "the weight or its base is a null pointer");
  for (const int64_t stride :
       {job.weight_row_stride, job.weight_col_stride, job.base_row_stride, job.base_col_stride})
    if (!empty && stride == 0) refuse_job(index, "a stride is 0");
  for (const Term& term : job.terms) check(term, index, empty);
}

}  // namespace

void refuse_job(size_t job, const std::string& what) {
  throw Error(Fault::argument, "[fuse] job " + std::to_string(job) + ": " + what);
}

void check_jobs(const std::vector<Job>& jobs) {
  for (size_t i = 0; i < jobs.size(); ++i) check(jobs[i], i);
}

}  // namespace lora_mmap
