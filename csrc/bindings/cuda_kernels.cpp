// The grouped kernels: launched on a stream, and their tables for whoever wants to see what would be
// launched.
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "bindings/plan_tuples.h"
#include "bindings/without_gil.h"
#include "cuda/launch.h"
#include "cuda/table.h"

namespace py = pybind11;

namespace lora_mmap::bindings {
namespace {

cuda::CUstream stream_at(uintptr_t address) {
  return reinterpret_cast<cuda::CUstream>(address);
}

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

py::tuple copy_table(const py::list& list) {
  const std::vector<Rect> rects = read_rects(list);
  cuda::Table table;
  without_gil([&] { table = cuda::copy_table(rects); });
  return as_tuple(table);
}

// `work(device)` with the context of device `ordinal` current, without the GIL.
template <class Work>
void on_device(int ordinal, const char* function, Work&& work) {
  without_gil([&] {
    cuda::Device& device = cuda::Device::at(ordinal, function);
    const cuda::CurrentContext current = device.enter(function);
    work(device);
  });
}

void cuda_fuse(int ordinal, uintptr_t stream, const py::list& list, bool fast, cuda::CUdeviceptr table,
               size_t table_nbytes, cuda::CUdeviceptr flags) {
  const std::vector<Job> jobs = read_jobs(list);
  on_device(ordinal, "cuda_fuse", [&](cuda::Device& device) {
    cuda::fuse(device, stream_at(stream), jobs, numerics_of(fast), table, table_nbytes, flags);
  });
}

void cuda_copy(int ordinal, uintptr_t stream, const py::list& list, cuda::CUdeviceptr table,
               size_t table_nbytes) {
  const std::vector<Rect> rects = read_rects(list);
  on_device(ordinal, "cuda_copy",
            [&](cuda::Device& device) { cuda::copy(device, stream_at(stream), rects, table, table_nbytes); });
}

uint64_t cuda_probe_ffma(int ordinal, uintptr_t stream, uint32_t rounds, cuda::CUdeviceptr sink) {
  uint64_t operations = 0;
  on_device(ordinal, "cuda_probe_ffma", [&](cuda::Device& device) {
    operations = cuda::probe_ffma(device, stream_at(stream), rounds, sink);
  });
  return operations;
}

}  // namespace

void register_cuda_kernels(py::module_& m) {
  m.def("cuda_fuse", cuda_fuse, py::arg("device"), py::arg("stream"), py::arg("jobs"), py::arg("fast"),
        py::arg("table"), py::arg("table_nbytes"), py::arg("flags"),
        "Fuses jobs on the device's addresses, as fuse() takes them, on the stream; returns at once. `table` "
        "is\n"
        "device memory for cuda_fuse_table_nbytes(jobs), 16-byte aligned; flag i, a u32, becomes 1 if job i\n"
        "overflows. `fast` lets 16-bit factors through the tensor cores.");
  m.def("cuda_copy", cuda_copy, py::arg("device"), py::arg("stream"), py::arg("rects"), py::arg("table"),
        py::arg("table_nbytes"), "Copies rectangles, as copy() takes them; `table` as in cuda_fuse().");
  m.def("cuda_probe_ffma", cuda_probe_ffma, py::arg("device"), py::arg("stream"), py::arg("rounds"),
        py::arg("sink"),
        "Fills the device with fp32 fma on registers, on the stream; returns how many. `sink` is a float "
        "there.");
  m.def(
      "cuda_fuse_table_nbytes", [](const py::list& jobs) { return cuda::fuse_table_nbytes(read_jobs(jobs)); },
      py::arg("jobs"), "Bytes of device memory that the table of cuda_fuse() takes at most.");
  m.def(
      "cuda_copy_table_nbytes",
      [](const py::list& rects) { return cuda::copy_table_nbytes(read_rects(rects)); }, py::arg("rects"),
      "Likewise of cuda_copy().");
  m.def(
      "cuda_fuse_table", fuse_table, py::arg("jobs"), py::arg("fast"), py::arg("arch"),
      "(table, launches) of the jobs, as fuse() takes them, on a device of compute capability `arch` (10 *\n"
      "major + minor). A launch is (kernel, threads of a block, bytes of shared memory, tiles, rows of the\n"
      "table, their offset, the terms' offset).");
  m.def("cuda_copy_table", copy_table, py::arg("rects"), "Likewise of rectangles, as copy() takes them.");
}

}  // namespace lora_mmap::bindings
