#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <tuple>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/without_gil.h"
#include "cuda/readback.h"
#include "cuda/recorded_event.h"
#include "safetensors/header.h"
#include "stream/upload.h"

namespace py = pybind11;

namespace lora_mmap::bindings {
namespace {

using cuda::CurrentContext;
using cuda::CUstream;
using cuda::Device;
using cuda::ReadBack;
using cuda::RecordedEvent;
using safetensors::File;
using safetensors::Header;

using PyUpload = std::tuple<std::shared_ptr<File>, std::shared_ptr<Header>, uint64_t, uintptr_t, uint64_t,
                            cuda::CUdeviceptr>;

CUstream stream_at(uintptr_t address) {
  return reinterpret_cast<CUstream>(address);
}

std::unique_ptr<RecordedEvent> cuda_event(int ordinal, uintptr_t stream, bool timing) {
  std::unique_ptr<RecordedEvent> event;
  without_gil([&] {
    Device& device = Device::at(ordinal, "cuda_event");
    event = std::make_unique<RecordedEvent>(device, stream_at(stream),
                                            timing ? cuda::Timing::yes : cuda::Timing::no);
  });
  return event;
}

void cuda_wait(int ordinal, uintptr_t stream, const RecordedEvent& event) {
  without_gil([&] {
    Device& device = Device::at(ordinal, "cuda_wait");
    const CurrentContext current = device.enter("cuda_wait");
    device.refuse_capture(stream_at(stream));
    cuda::driver().cuStreamWaitEvent(stream_at(stream), event.get(), 0);
  });
}

void cuda_upload(int ordinal, uintptr_t stream, const std::vector<PyUpload>& requests,
                 const RecordedEvent* after, int threads) {
  std::vector<stream::UploadRequest> plain;
  plain.reserve(requests.size());
  for (const auto& [file, header, offset, source, nbytes, destination] : requests)
    plain.push_back(
        {file.get(), header.get(), offset, reinterpret_cast<const void*>(source), nbytes, destination});
  without_gil([&] {
    Device& device = Device::at(ordinal, "cuda_upload");
    const CurrentContext current = device.enter("cuda_upload");
    stream::upload(device, plain, after ? after->get() : nullptr, stream_at(stream), threads);
  });
}

std::unique_ptr<ReadBack> make_read_back(int ordinal, uintptr_t stream, cuda::CUdeviceptr address,
                                         size_t nbytes) {
  std::unique_ptr<ReadBack> read_back;
  without_gil([&] {
    Device& device = Device::at(ordinal, "CudaReadBack");
    const CurrentContext current = device.enter("CudaReadBack");
    device.refuse_capture(stream_at(stream));
    read_back = std::make_unique<ReadBack>(device, stream_at(stream), address, nbytes);
  });
  return read_back;
}

template <class Waited>
bool ready(Waited& waited) {
  bool ready = false;
  without_gil([&] { ready = waited.ready(); });
  return ready;
}

py::bytes wait_for_bytes(ReadBack& read_back) {
  without_gil([&] { read_back.wait(); });
  return {reinterpret_cast<const char*>(read_back.data()), read_back.nbytes()};
}

void register_events(py::module_& m) {
  py::class_<RecordedEvent>(m, "CudaEvent", "A place in a stream. Safe to share between threads.")
      .def("ready", &ready<const RecordedEvent>, "Whether the stream has passed it. Never blocks.")
      .def(
          "wait", [](const RecordedEvent& event) { without_gil([&] { event.wait(); }); },
          "Blocks until the stream has passed it.")
      .def("elapsed_ms", &RecordedEvent::elapsed_ms, py::arg("since"),
           "Milliseconds from `since` to this; both made with timing=True and passed.");
  m.def("cuda_event", &cuda_event, py::arg("device"), py::arg("stream"), py::arg("timing") = false,
        "Marks what the stream has been told to do so far.");
  m.def("cuda_wait", &cuda_wait, py::arg("device"), py::arg("stream"), py::arg("event"),
        "Lets the stream wait for the event.");
}

}  // namespace

void register_cuda_streaming(py::module_& m) {
  register_events(m);
  m.def(
      "cuda_upload", &cuda_upload, py::arg("device"), py::arg("stream"), py::arg("requests"),
      py::arg("after"), py::arg("threads"),
      "Copies each (file or None, its header or None, offset in the file, address in memory if there is no "
      "file, nbytes, device address) to the device through its pinned ring, on its copy stream: after the "
      "event `after` (or at once), and before what `stream` is told to do from now on. Sources in memory are "
      "not needed any more when this returns.");
  py::class_<ReadBack>(m, "CudaReadBack",
                       "A few bytes of the device, copied to the host when `stream` gets there.")
      .def(py::init(&make_read_back), py::arg("device"), py::arg("stream"), py::arg("address"),
           py::arg("nbytes"))
      .def("ready", &ready<ReadBack>, "Whether they are there. Never blocks.")
      .def("wait", &wait_for_bytes, "The bytes, when they are there.");
}

}  // namespace lora_mmap::bindings
