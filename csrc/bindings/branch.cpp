#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "bindings/plan_tuples.h"
#include "bindings/without_gil.h"
#include "branch/write_factors.h"

namespace py = pybind11;

namespace lora_mmap::bindings {
namespace {

std::vector<int64_t> write_jobs(const py::list& list, int threads, const std::optional<std::string>& isa) {
  const std::vector<FactorWrite> jobs = read_factor_writes(list);
  std::vector<int64_t> overflowed;
  without_gil([&] { overflowed = write_factors(jobs, threads, isa); });
  return overflowed;
}

}  // namespace

void register_branch(py::module_& m) {
  m.def(
      "write_factors", write_jobs, py::arg("jobs"), py::arg("threads"), py::arg("isa") = py::none(),
      "Writes factors into low-rank branches: (layout: \"down\", \"up\" or \"plain\", address, "
      "feature_pitch,\n"
      "rank_pitch, dtype, features_begin, features_end, rank_begin, rank_end, factor or None, factor_dtype,\n"
      "feature_stride, rank_stride, scale, feature_map or 0). Addresses as integers, pitches and strides in\n"
      "elements; pitches lead from tile to tile, plain ones from element to element. Without a factor, "
      "zeros.\n"
      "Returns for each job the number of elements that are not finite where the factor's are.");
}

}  // namespace lora_mmap::bindings
