#include "undo/prepared_step.h"

#include <utility>

#include "fuse/column_job.h"

namespace lora_mmap {
namespace {

bool is_turned(const Step& step) {
  const auto allows = [&](const std::optional<Layer>& layer) {
    return !layer || is_column(job_of(step, *layer));
  };
  return step.cols == 1 && step.rows > 1 && allows(step.old) && allows(step.next);
}

}  // namespace

PreparedStep::PreparedStep(const Step& step)
    : dtype_(step.dtype),
      turned_(is_turned(step)),
      grid_(turned_ ? step.cols : step.rows, turned_ ? step.rows : step.cols),
      weight_(side(step.weight, step.row_stride, step.col_stride)) {
  if (step.old) old_ = prepare(step, *step.old);
  if (step.next) next_ = prepare(step, *step.next);
  if (step.out) out_ = side(step.out->data, step.out->row_stride, step.out->col_stride);
}

PreparedLayer PreparedStep::prepare(const Step& step, const Layer& layer) const {
  const Job job = job_of(step, layer);
  const Values& values = layer.values;
  return {turned_ ? as_row(job) : job, layer.record.get(),
          values.data ? side(values.data, values.row_stride, values.col_stride) : Side{}};
}

Side PreparedStep::side(const void* data, int64_t row_stride, int64_t col_stride) const {
  if (turned_) std::swap(row_stride, col_stride);
  auto* bytes = static_cast<std::byte*>(const_cast<void*>(data));
  return {bytes, row_stride, col_stride, dtype_bits(dtype_) / 8};
}

Block PreparedStep::as_given(Block tile) const {
  if (!turned_) return tile;
  return {tile.col, tile.row, tile.cols, tile.rows};
}

}  // namespace lora_mmap
