// The grouped kernels: launched on a stream, and their tables for whoever wants to see what would be
// launched.
#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "base/error.h"
#include "bindings/bindings.h"
#include "bindings/device_steps.h"
#include "bindings/plan_tuples.h"
#include "bindings/without_gil.h"
#include "cuda/step_table.h"
#include "cuda/table.h"

namespace py = pybind11;

namespace lora_mmap::bindings {
namespace {

cuda::Numerics numerics_of(bool fast) {
  return fast ? cuda::Numerics::fast : cuda::Numerics::ordered;
}

py::tuple as_tuple(const cuda::Table& table) {
  py::list launches;
  for (const cuda::Launch& launch : table.launches)
    launches.append(py::make_tuple(launch.kernel, launch.threads, launch.shared_nbytes, launch.tiles,
                                   launch.rows, launch.rows_offset, launch.terms_offset));
  return py::make_tuple(py::bytes(reinterpret_cast<const char*>(table.bytes.data()), table.bytes.size()),
                        launches);
}

py::tuple fuse_table(const py::list& list, bool fast, int arch) {
  const std::vector<Job> jobs = read_jobs(list);
  cuda::Table table;
  without_gil([&] { table = cuda::fuse_table(jobs, numerics_of(fast), arch); });
  return as_tuple(table);
}

py::tuple gains_table(const py::list& list) {
  const std::vector<Gains> jobs = read_gains(list);
  cuda::Table table;
  without_gil([&] { table = cuda::gains_table(jobs); });
  return as_tuple(table) + py::make_tuple(table.sums_nbytes);
}

py::tuple copy_table(const py::list& list) {
  const std::vector<Rect> rects = read_rects(list);
  cuda::Table table;
  without_gil([&] { table = cuda::copy_table(rects); });
  return as_tuple(table);
}

py::tuple step_table(const py::list& list) {
  const std::vector<cuda::DeviceStep> steps = read_device_steps(list);
  cuda::Table table;
  without_gil([&] { table = cuda::step_table(steps, false); });
  return as_tuple(table);
}

DType dtype_named(const std::string& name) {
  const std::optional<DType> dtype = dtype_from_name(name);
  if (!dtype) throw Error(Fault::argument, "[step] unknown dtype '" + name + "'");
  return *dtype;
}

py::tuple record_layout(int64_t rows, int64_t cols, const std::string& dtype, uint64_t corrections_nbytes) {
  const cuda::RecordLayout layout = cuda::record_layout(rows, cols, dtype_named(dtype), corrections_nbytes);
  return py::make_tuple(layout.tiles, layout.head_nbytes, layout.capacity_nbytes);
}

}  // namespace

void register_cuda_kernels(py::module_& m) {
  m.def(
      "cuda_fuse_table", fuse_table, py::arg("jobs"), py::arg("fast"), py::arg("arch"),
      "(table, launches) of the jobs, as fuse() takes them, on a device of compute capability `arch` (10 *\n"
      "major + minor). A launch is (kernel, threads of a block, bytes of shared memory, tiles, rows of the\n"
      "table, their offset, the terms' offset).");
  m.def("cuda_gains_table", gains_table, py::arg("jobs"),
        "Likewise of DoRA's factors, as gains() takes them, and the bytes that the launches need behind the "
        "table.");
  m.def("cuda_step_table", step_table, py::arg("steps"),
        "Likewise of steps, as CudaLaunches.step() takes them.");
  m.def("cuda_record_layout", record_layout, py::arg("rows"), py::arg("cols"), py::arg("dtype"),
        py::arg("corrections_nbytes"),
        "(tiles, bytes without corrections, bytes for corrections) of what a device keeps of one rectangle.");
  m.def("cuda_copy_table", copy_table, py::arg("rects"), "Likewise of rectangles, as copy() takes them.");
}

}  // namespace lora_mmap::bindings
