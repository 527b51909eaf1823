#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>

#include "bindings/bindings.h"
#include "bindings/without_gil.h"
#include "cuda/driver/device.h"
#include "cuda/pinned_block.h"

namespace py = pybind11;

namespace lora_mmap::bindings {
namespace {

using cuda::CUstream;
using cuda::Device;

py::object text_or_none(const std::string& text) {
  return text.empty() ? py::object(py::none()) : py::object(py::str(text));
}

py::dict cuda_driver() {
  cuda::DriverReport report;
  without_gil([&] { report = cuda::driver_report(); });
  py::dict result;
  result["loaded"] = report.loaded;
  result["version"] = py::make_tuple(report.version / 1000, report.version % 1000 / 10);
  result["devices"] = report.devices;
  result["why"] = text_or_none(report.why);
  return result;
}

py::dict cuda_device(int ordinal) {
  cuda::DeviceFacts facts;
  std::string image;
  std::string why;
  without_gil([&] {
    facts = cuda::device_facts(ordinal, "cuda_device");
    image = cuda::image_name_for(facts, why);
  });
  py::dict result;
  result["name"] = facts.name;
  result["capability"] = py::make_tuple(facts.major, facts.minor);
  result["multiprocessors"] = facts.multiprocessors;
  result["memory"] = facts.memory_nbytes;
  result["image"] = text_or_none(image);
  result["why"] = image.empty() ? text_or_none(why) : py::none();
  return result;
}

void cuda_prepare(int ordinal, uintptr_t stream, bool kernels) {
  without_gil([&] {
    Device& device = Device::at(ordinal, "cuda_prepare");
    const cuda::CurrentContext current = device.enter("cuda_prepare");
    device.refuse_capture(reinterpret_cast<CUstream>(stream));
    if (kernels) device.load_kernels();
    device.copy_stream();
  });
}

size_t cuda_clear(std::optional<int> ordinal) {
  size_t freed = 0;
  without_gil([&] {
    for (Device* device : Device::used()) {
      if (ordinal && device->ordinal() != *ordinal) continue;
      const cuda::CurrentContext current = device->enter("cuda_clear");
      freed += device->clear();
    }
  });
  return freed;
}

// Other Python threads do not wait for a device that is not done with the block.
struct FreeBlock {
  void operator()(cuda::PinnedBlock* block) const {
    without_gil([&] { delete block; });
  }
};
using PinnedBlockHolder = std::unique_ptr<cuda::PinnedBlock, FreeBlock>;

PinnedBlockHolder make_pinned_block(int ordinal, size_t nbytes) {
  PinnedBlockHolder block;
  without_gil([&] { block.reset(new cuda::PinnedBlock(Device::at(ordinal, "PinnedBlock"), nbytes)); });
  return block;
}

void register_pinned_block(py::module_& m) {
  py::class_<cuda::PinnedBlock, PinnedBlockHolder>(
      m, "CudaPinnedBlock",
      "Pinned host memory that launches on one device use in place. Dropped, it is freed when the device is\n"
      "done with those that were submitted before.")
      .def(py::init(&make_pinned_block), py::arg("device"), py::arg("nbytes"))
      .def_property_readonly(
          "address", [](const cuda::PinnedBlock& block) { return reinterpret_cast<uintptr_t>(block.data()); })
      .def_property_readonly("nbytes", &cuda::PinnedBlock::nbytes);
  m.def("cuda_pinned_block_nbytes", &cuda::PinnedBlock::total_nbytes,
        "In the blocks that this process holds now.");
}

}  // namespace

void register_cuda(py::module_& m) {
  register_pinned_block(m);
  m.def("cuda_driver", &cuda_driver,
        "{loaded, version (major, minor), devices, why it cannot be used or None}. Creates no context.");
  m.def(
      "cuda_device", &cuda_device, py::arg("device"),
      "{name, capability (major, minor), multiprocessors, memory in bytes, image that its kernels come from "
      "or None, why}. Creates no context.");
  m.def(
      "cuda_prepare", &cuda_prepare, py::arg("device"), py::arg("stream"), py::arg("kernels") = true,
      "Loads the kernels and makes the copy stream of a device that torch uses. `stream` is the stream that "
      "will be worked on: refused while it is captured.");
  m.def(
      "cuda_clear", &cuda_clear, py::arg("device") = py::none(),
      "Waits for the copies in flight and frees the pinned memory, of one device or of all that were used.\n"
      "Returns the bytes freed.");
  m.def(
      "cuda_pinned_nbytes",
      [] { return cuda::PinnedMemory::total_nbytes() - cuda::PinnedBlock::total_nbytes(); },
      "Pinned by this library in this process now, but for CudaPinnedBlocks.");
}

}  // namespace lora_mmap::bindings
