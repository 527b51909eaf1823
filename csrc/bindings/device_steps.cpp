#include "bindings/device_steps.h"

#include <pybind11/stl.h>

#include <optional>
#include <tuple>
#include <utility>

#include "bindings/plan_tuples.h"

namespace py = pybind11;

namespace lora_mmap::bindings {
namespace {

using PyLayer = std::tuple<py::tuple, bool, uintptr_t, uint64_t, bool>;
using PyOut = std::tuple<uintptr_t, int64_t, int64_t>;
using PyStep = std::tuple<std::optional<PyLayer>, std::optional<PyLayer>, std::optional<PyOut>>;

// The jobs are left to be read together.
std::optional<cuda::StepLayer> read_layer(const std::optional<PyLayer>& layer, py::list& jobs) {
  if (!layer) return std::nullopt;
  const auto& [job, has_values, address, capacity_nbytes, corrections] = *layer;
  jobs.append(job);
  return cuda::StepLayer{
      {}, has_values, {reinterpret_cast<const void*>(address), capacity_nbytes, corrections}};
}

}  // namespace

std::vector<cuda::DeviceStep> read_device_steps(const py::list& list) {
  std::vector<cuda::DeviceStep> steps;
  steps.reserve(list.size());
  py::list tuples;
  for (const py::handle item : list) {
    const auto& [old, next, out] = item.cast<PyStep>();
    cuda::DeviceStep& step = steps.emplace_back();
    step.old = read_layer(old, tuples);
    step.next = read_layer(next, tuples);
    if (!out) continue;
    const auto& [address, row_stride, col_stride] = *out;
    step.out = cuda::StepOut{reinterpret_cast<void*>(address), row_stride, col_stride};
  }
  std::vector<Job> jobs = read_jobs(tuples);
  auto job = jobs.begin();
  for (cuda::DeviceStep& step : steps)
    for (auto* layer : {&step.old, &step.next})
      if (*layer) (*layer)->job = std::move(*job++);
  return steps;
}

}  // namespace lora_mmap::bindings
