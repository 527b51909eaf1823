#include "fuse/job_check.h"

#include "base/error.h"
#include "fuse/weight_format.h"

namespace lora_mmap {
namespace {

// One job; messages begin with `where`.
class JobCheck {
 public:
  JobCheck(const std::string& where, const Job& job)
      : where_(where), job_(job), empty_(job.rows == 0 || job.cols == 0) {}
  JobCheck(const char* function, size_t index, const Job& job)
      : JobCheck(std::string("[").append(function).append("] job ").append(std::to_string(index)), job) {}

  void check_job() const {
    if (job_.rows < 0 || job_.cols < 0) refuse("negative size");
    if (!is_weight_dtype(job_.dtype))
      refuse("a weight of type " + name(job_.dtype) + ", expected F16, BF16, F32 or F64");
    if (!empty_ && !job_.base) refuse("the base is a null pointer");
    if (!empty_ && (job_.base_row_stride == 0 || job_.base_col_stride == 0)) refuse("a stride is 0");
    check_terms();
  }

  void check_terms() const {
    for (const Term& term : job_.terms) check(term);
  }

  void check_weight() const {
    if (!empty_ && !job_.weight) refuse("the weight is a null pointer");
    if (!empty_ && (job_.weight_row_stride == 0 || job_.weight_col_stride == 0)) refuse("a stride is 0");
  }

  void check_gains(const Gains& gains, Where where) const {
    if (job_.terms.size() != 1) refuse(std::to_string(job_.terms.size()) + " terms, expected 1");
    if (job_.terms[0].gain || job_.terms[0].times_base) refuse("a term with a gain, or times the base");
    if (!is_factor_dtype(gains.magnitude_dtype)) refuse("a magnitude of type " + name(gains.magnitude_dtype));
    if (gains.n_groups < 0) refuse("n_groups is " + std::to_string(gains.n_groups));
    if (gains.n_groups > 0 && (!gains.magnitude || !gains.out))
      refuse("the magnitude or what comes out is a null pointer");
    check_groups(gains, where);
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(Fault::argument, where_ + ": " + what);
  }

  static std::string name(DType dtype) { return std::string(dtype_name(dtype)); }

  void check_groups(const Gains& gains, Where where) const {
    const int64_t expected = gains.by_columns ? job_.cols : job_.rows;
    if (!gains.groups && gains.n_groups != expected)
      refuse("n_groups is " + std::to_string(gains.n_groups) + ", expected " + std::to_string(expected));
    if (!gains.groups) return;
    if (!gains.by_columns) refuse("groups of rows");
    if (where == Where::device) return;
    for (int64_t n = 0; n < job_.cols; ++n)
      if (gains.groups[n] < 0 || gains.groups[n] >= gains.n_groups)
        refuse("column " + std::to_string(n) + " in group " + std::to_string(gains.groups[n]) + " of " +
               std::to_string(gains.n_groups));
  }

  void check(const Matrix& matrix) const {
    const bool whole = matrix.is_whole();
    if (matrix.rank < 0 && !whole) refuse("rank is " + std::to_string(matrix.rank));
    for (const DType dtype : {matrix.down_dtype, whole ? matrix.down_dtype : matrix.up_dtype})
      if (!is_factor_dtype(dtype)) refuse("a factor of type " + name(dtype));
    const bool no_down = (whole || matrix.rank > 0) && !matrix.down;
    const bool no_up = matrix.rank > 0 && !matrix.up;
    if (!empty_ && (no_down || no_up)) refuse("a factor is a null pointer");
  }

  void check(const Gain& gain) const {
    const Matrix& factors = gain.factors;
    check(factors);
    if (!factors.is_whole()) refuse("a gain of rank " + std::to_string(factors.rank) + ", expected -1");
    const DType expected = job_.dtype == DType::F64 ? DType::F64 : DType::F32;
    if (factors.down_dtype != expected)
      refuse("a gain of type " + name(factors.down_dtype) + ", expected " + name(expected));
    if (factors.down_row_stride != 0 && factors.down_col_stride != 0)
      refuse("a gain with two strides, expected one for each row or one for each column");
  }

  void check(const Term& term) const {
    check(term.matrix);
    if (term.times) check(*term.times);
    if (term.times && term.times_base) refuse("a term times a matrix and times the base");
    if (term.gain && term.times_base) refuse("a term times the base with a gain");
    if (term.gain) check(*term.gain);
  }

  const std::string where_;
  const Job& job_;
  bool empty_;
};

}  // namespace

void refuse_job(size_t job, const std::string& what) {
  throw Error(Fault::argument, "[fuse] job " + std::to_string(job) + ": " + what);
}

void check_jobs(const std::vector<Job>& jobs) {
  for (size_t i = 0; i < jobs.size(); ++i) {
    const JobCheck check("fuse", i, jobs[i]);
    check.check_job();
    check.check_weight();
  }
}

void check_terms(const std::string& where, const Job& job) {
  JobCheck(where, job).check_terms();
}

void check_gains(const std::vector<Gains>& jobs, Where where) {
  for (size_t i = 0; i < jobs.size(); ++i) {
    const JobCheck check("gains", i, jobs[i].job);
    check.check_job();
    check.check_gains(jobs[i], where);
  }
}

}  // namespace lora_mmap
