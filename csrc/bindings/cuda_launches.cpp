#include <pybind11/pybind11.h>

#include <memory>

#include "bindings/bindings.h"
#include "bindings/device_steps.h"
#include "bindings/plan_tuples.h"
#include "bindings/without_gil.h"
#include "cuda/launch.h"
#include "cuda/step_table.h"
#include "cuda/stream_memory.h"

namespace py = pybind11;

namespace lora_mmap::bindings {
namespace {

using cuda::Device;

// A table on its way to one device.
struct Launches {
  Device& device;
  cuda::Table table;
};

int arch_of(const Device& device) {
  return 10 * device.facts().major + device.facts().minor;
}

std::unique_ptr<Launches> fuse_launches(int ordinal, const py::list& list, bool fast) {
  const std::vector<Job> jobs = read_jobs(list);
  std::unique_ptr<Launches> made;
  without_gil([&] {
    Device& device = Device::at(ordinal, "fuse");
    const auto numerics = fast ? cuda::Numerics::fast : cuda::Numerics::ordered;
    made.reset(new Launches{device, cuda::fuse_table(jobs, numerics, arch_of(device))});
  });
  return made;
}

std::unique_ptr<Launches> gains_launches(int ordinal, const py::list& list) {
  const std::vector<Gains> jobs = read_gains(list);
  std::unique_ptr<Launches> made;
  without_gil([&] { made.reset(new Launches{Device::at(ordinal, "gains"), cuda::gains_table(jobs)}); });
  return made;
}

std::unique_ptr<Launches> copy_launches(int ordinal, const py::list& list) {
  const std::vector<Rect> rects = read_rects(list);
  std::unique_ptr<Launches> made;
  without_gil([&] { made.reset(new Launches{Device::at(ordinal, "copy"), cuda::copy_table(rects)}); });
  return made;
}

std::unique_ptr<Launches> step_launches(int ordinal, const py::list& list, bool force) {
  const std::vector<cuda::DeviceStep> steps = read_device_steps(list);
  std::unique_ptr<Launches> made;
  without_gil([&] { made.reset(new Launches{Device::at(ordinal, "step"), cuda::step_table(steps, force)}); });
  return made;
}

void submit(const Launches& launches, uintptr_t stream, cuda::CUdeviceptr address, cuda::CUdeviceptr flags) {
  without_gil([&] {
    const cuda::CurrentContext current = launches.device.enter("launch");
    cuda::launch(launches.device, reinterpret_cast<cuda::CUstream>(stream), launches.table, address, flags);
  });
}

void put(int ordinal, uintptr_t stream, uintptr_t source, size_t nbytes, cuda::CUdeviceptr address) {
  without_gil([&] {
    Device& device = Device::at(ordinal, "cuda_put");
    const cuda::CurrentContext current = device.enter("cuda_put");
    cuda::put(device, reinterpret_cast<cuda::CUstream>(stream), reinterpret_cast<const void*>(source), nbytes,
              address);
  });
}

void put_zeros(int ordinal, uintptr_t stream, size_t nbytes, cuda::CUdeviceptr address) {
  without_gil([&] {
    const cuda::CurrentContext current = Device::at(ordinal, "cuda_put_zeros").enter("cuda_put_zeros");
    cuda::put_zeros(reinterpret_cast<cuda::CUstream>(stream), nbytes, address);
  });
}

uint64_t probe_ffma(int ordinal, uintptr_t stream, uint32_t rounds, cuda::CUdeviceptr sink) {
  uint64_t operations = 0;
  without_gil([&] {
    Device& device = Device::at(ordinal, "cuda_probe_ffma");
    const cuda::CurrentContext current = device.enter("cuda_probe_ffma");
    operations = cuda::probe_ffma(device, reinterpret_cast<cuda::CUstream>(stream), rounds, sink);
  });
  return operations;
}

}  // namespace

void register_cuda_launches(py::module_& m) {
  py::class_<Launches>(m, "CudaLaunches", "Grouped launches on one device, and the table that they walk.")
      .def_static("fuse", &fuse_launches, py::arg("device"), py::arg("jobs"), py::arg("fast"),
                  "Of the jobs, as fuse() takes them, with addresses of the device.")
      .def_static("gains", &gains_launches, py::arg("device"), py::arg("jobs"),
                  "Of DoRA's factors, as gains() takes them, with addresses of the device.")
      .def_static("copy", &copy_launches, py::arg("device"), py::arg("rects"),
                  "Of the rectangles, as copy() takes them, with addresses of the device.")
      .def_static(
          "step", &step_launches, py::arg("device"), py::arg("steps"), py::arg("force"),
          "Of steps (old layer or None, new layer or None, out or None), with addresses of the device.\n"
          "A layer: (job as fuse() takes it, whether its base counts, address of the record, bytes for\n"
          "its corrections, whether it has those). An out: (address, row stride, col stride). Flags have\n"
          "1 added where a result overflows, 2 where a record is full, 4 where a tile is foreign: see\n"
          "lora_mmap/cuda/launches.py.")
      .def_property_readonly(
          "table_nbytes", [](const Launches& launches) { return launches.table.nbytes(); },
          "Device memory that submit() needs.")
      .def("submit", &submit, py::arg("stream"), py::arg("table"), py::arg("flags") = 0,
           "Uploads the table to `table` and launches, on `stream` and asynchronously. `flags`: the address\n"
           "of one u32 per job, set to 1 where a result of the job overflows.");
  m.def("cuda_put", put, py::arg("device"), py::arg("stream"), py::arg("source"), py::arg("nbytes"),
        py::arg("address"),
        "Copies a few bytes of the host to device memory, in the order of the stream. `source` is not needed "
        "any\n"
        "more when this returns.");
  m.def("cuda_put_zeros", put_zeros, py::arg("device"), py::arg("stream"), py::arg("nbytes"),
        py::arg("address"), "Fills device memory with zeros, in the order of the stream.");
  m.def("cuda_probe_ffma", probe_ffma, py::arg("device"), py::arg("stream"), py::arg("rounds"),
        py::arg("sink"),
        "Fills the device with fp32 fma on registers, on the stream; returns how many. `sink` is a float "
        "there.");
}

}  // namespace lora_mmap::bindings
