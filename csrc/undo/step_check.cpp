#include "undo/step_check.h"

#include <algorithm>
#include <string>

#include "base/error.h"
#include "fuse/job_check.h"
#include "fuse/weight_format.h"

namespace lora_mmap {
namespace {

bool needs_base(const Term& term) {
  return term.times_base || term.gain;
}

class StepCheck {
 public:
  StepCheck(size_t index, const Step& step)
      : where_("[step] step " + std::to_string(index)),
        step_(step),
        empty_(step.rows == 0 || step.cols == 0) {}

  void check() const {
    if (step_.rows < 0 || step_.cols < 0) refuse("negative size");
    if (!is_weight_dtype(step_.dtype))
      refuse("a weight of type " + std::string(dtype_name(step_.dtype)) + ", expected F16, BF16, F32 or F64");
    check_place("weight", step_.weight, step_.row_stride, step_.col_stride);
    if (!step_.old && !step_.next) refuse("neither old nor new terms");
    if (step_.old) check_old(*step_.old);
    if (step_.next) check_next(*step_.next);
    if (step_.out) check_out(*step_.out);
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(Fault::argument, where_ + ": " + what);
  }

  void check_place(const char* what, const void* data, int64_t row_stride, int64_t col_stride) const {
    if (empty_) return;
    if (!data) refuse(std::string("the ") + what + " is a null pointer");
    if (row_stride == 0 || col_stride == 0) refuse(std::string("a stride of the ") + what + " is 0");
  }

  void check_layer(const Layer& layer, const char* values) const {
    if (layer.values.data)
      check_place(values, layer.values.data, layer.values.row_stride, layer.values.col_stride);
    if (!layer.record) refuse("no record");
    const TileGrid& grid = layer.record->grid();
    if (grid.rows() != step_.rows || grid.cols() != step_.cols || layer.record->dtype() != step_.dtype)
      refuse("a record of " + described(grid.rows(), grid.cols(), layer.record->dtype()) + ", expected " +
             described(step_.rows, step_.cols, step_.dtype));
    check_terms(where_, job_of(step_, layer));
  }

  void check_old(const Layer& old) const {
    check_layer(old, "pristine values");
    if (old.values.data) return;
    if (!old.record->has_corrections()) refuse("neither corrections nor pristine values");
    if (std::any_of(old.terms.begin(), old.terms.end(), needs_base))
      refuse("old terms that need the base, and no pristine values");
  }

  void check_next(const Layer& next) const {
    check_layer(next, "base");
    if (next.record->has_corrections() && std::any_of(next.terms.begin(), next.terms.end(), needs_base))
      refuse("corrections for terms that need the base");
  }

  void check_out(const Target& out) const {
    if (!step_.old || step_.next) refuse("an out takes pristine values from old terms, without new ones");
    check_place("out", out.data, out.row_stride, out.col_stride);
  }

  static std::string described(int64_t rows, int64_t cols, DType dtype) {
    return std::to_string(rows) + " x " + std::to_string(cols) + " " + std::string(dtype_name(dtype));
  }

  const std::string where_;
  const Step& step_;
  const bool empty_;
};

// No two layers of a call may share a record.
void check_records(const std::vector<Step>& steps) {
  std::vector<const Record*> records;
  for (const Step& step : steps) {
    if (step.old) records.push_back(step.old->record.get());
    if (step.next) records.push_back(step.next->record.get());
  }
  std::sort(records.begin(), records.end());
  if (std::adjacent_find(records.begin(), records.end()) != records.end())
    throw Error(Fault::argument, "[step] a record is used twice");
}

}  // namespace

Job job_of(const Step& step, const Layer& layer) {
  const Values base =
      layer.values.data ? layer.values : Values{step.weight, step.row_stride, step.col_stride};
  return {step.weight,     base.data,       step.rows,       step.cols,  step.row_stride,
          step.col_stride, base.row_stride, base.col_stride, step.dtype, layer.terms};
}

void check_steps(const std::vector<Step>& steps) {
  for (size_t i = 0; i < steps.size(); ++i) StepCheck(i, steps[i]).check();
  check_records(steps);
}

}  // namespace lora_mmap
