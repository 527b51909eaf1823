#include "fuse/job_check.h"

#include "base/error.h"
#include "fuse/weight_format.h"

namespace lora_mmap {
namespace {

void check(const Matrix& matrix, size_t job, bool empty) {
  if (matrix.rank < 0 && !matrix.is_whole()) refuse_job(job, "rank is " + std::to_string(matrix.rank));
  for (const DType dtype : {matrix.down_dtype, matrix.is_whole() ? matrix.down_dtype : matrix.up_dtype})
    if (!is_factor_dtype(dtype)) refuse_job(job, "a factor of type " + std::string(dtype_name(dtype)));
  const bool needs_down = matrix.is_whole() || matrix.rank > 0;
  if (!empty && ((needs_down && !matrix.down) || (matrix.rank > 0 && !matrix.up)))
    refuse_job(job, "a factor is a null pointer");
}

void check(const Gain& gain, size_t job, DType weight, bool empty) {
  const Matrix& factors = gain.factors;
  check(factors, job, empty);
  if (!factors.is_whole())
    refuse_job(job, "a gain of rank " + std::to_string(factors.rank) + ", expected -1");
  const DType expected = weight == DType::F64 ? DType::F64 : DType::F32;
  if (factors.down_dtype != expected)
    refuse_job(job, "a gain of type " + std::string(dtype_name(factors.down_dtype)) + ", expected " +
                        std::string(dtype_name(expected)));
  if (factors.down_row_stride != 0 && factors.down_col_stride != 0)
    refuse_job(job, "a gain with two strides, expected one per row or one per column");
}

void check(const Term& term, size_t job, DType weight, bool empty) {
  check(term.matrix, job, empty);
  if (term.times) check(*term.times, job, empty);
  if (term.times && term.times_base) refuse_job(job, "a term times a matrix and the base");
  if (term.gain && term.times_base) refuse_job(job, "a term times the base with a gain");
  if (term.gain) check(*term.gain, job, weight, empty);
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
  for (const Term& term : job.terms) check(term, index, job.dtype, empty);
}

}  // namespace

void refuse_job(size_t job, const std::string& what) {
  throw Error(Fault::argument, "[fuse] job " + std::to_string(job) + ": " + what);
}

void check_jobs(const std::vector<Job>& jobs) {
  for (size_t i = 0; i < jobs.size(); ++i) check(jobs[i], i);
}

}  // namespace lora_mmap
