#include "stream/reader.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <memory>
#include <string_view>
#include <tuple>
#include <vector>

#include "base/error.h"
#include "bindings/bindings.h"
#include "bindings/exported_buffer.h"
#include "safetensors/header.h"
#include "stream/memory.h"
#include "stream/ranges.h"
#include "stream/tensors.h"

namespace py = pybind11;

namespace lora_mmap::bindings {
namespace {

using safetensors::File;
using safetensors::Header;
using stream::Memory;
using stream::Range;

using PyRange = std::tuple<uint64_t, uint64_t>;  // offset, nbytes
using PyRequest = std::tuple<std::shared_ptr<File>, std::shared_ptr<Header>, uint64_t, uint64_t, uintptr_t>;

std::vector<Range> ranges_from(const std::vector<PyRange>& pairs) {
  std::vector<Range> ranges;
  ranges.reserve(pairs.size());
  for (const auto& [offset, nbytes] : pairs) ranges.push_back({offset, nbytes});
  return ranges;
}

std::vector<PyRange> coalesce(const std::vector<PyRange>& wanted, const std::vector<PyRange>& barred,
                              uint64_t max_gap) {
  std::vector<PyRange> spans;
  for (const Range& range : stream::coalesce(ranges_from(wanted), ranges_from(barred), max_gap))
    spans.emplace_back(range.offset, range.nbytes);
  return spans;
}

py::tuple as_tuple(const stream::StagingPlan& plan) {
  std::vector<std::tuple<uint64_t, uint64_t, uint64_t>> spans;
  for (const auto& [range, position] : plan.spans) spans.emplace_back(range.offset, range.nbytes, position);
  return py::make_tuple(spans, plan.positions, plan.nbytes);
}

py::tuple plan_staging(const std::vector<PyRange>& wanted, const std::vector<PyRange>& barred,
                       uint64_t max_gap, uint64_t alignment) {
  return as_tuple(stream::plan_staging(ranges_from(wanted), ranges_from(barred), max_gap, alignment));
}

void read_ranges(const std::vector<PyRequest>& requests, int threads) {
  std::vector<stream::ReadRequest> plain;
  plain.reserve(requests.size());
  for (const auto& [file, header, offset, nbytes, address] : requests) {
    if (!file || (address == 0 && nbytes > 0))
      throw Error(Fault::argument, "[read_ranges] a request has no file or no address");
    plain.push_back({file.get(), header.get(), offset, nbytes, reinterpret_cast<void*>(address)});
  }
  const py::gil_scoped_release unlocked;
  stream::read(plain, threads);
}

std::vector<uint64_t> read_tensors(const File& file, const Header& header, const std::vector<size_t>& tensors,
                                   uintptr_t address, uint64_t nbytes, uint64_t max_gap, uint64_t alignment,
                                   int threads) {
  if (address == 0 && nbytes > 0) throw Error(Fault::argument, "[read_tensors] no address to read to");
  const stream::StagingPlan plan = stream::plan_tensors(header, tensors, max_gap, alignment);
  stream::read_planned(file, header, plan, {reinterpret_cast<std::byte*>(address), nbytes}, threads);
  return plan.positions;
}

// The same for bytes that are in memory already.
void copy_ranges(const py::bytes& data,
                 const std::vector<std::tuple<uint64_t, uint64_t, uintptr_t>>& requests) {
  const auto bytes = static_cast<std::string_view>(data);
  for (const auto& [offset, nbytes, address] : requests)
    if (offset > bytes.size() || nbytes > bytes.size() - offset || (address == 0 && nbytes > 0))
      throw Error(Fault::argument, "[copy_ranges] a request lies beyond the data or has no address");
  const py::gil_scoped_release unlocked;
  for (const auto& [offset, nbytes, address] : requests)
    if (nbytes > 0) std::memcpy(reinterpret_cast<void*>(address), bytes.data() + offset, nbytes);
}

void register_memory(py::module_& m) {
  using ExportedMemory = ExportedBuffer<Memory>;
  py::class_<ExportedMemory>(m, "Memory", writable_buffer<ExportedMemory>(),
                             "Page-aligned zero-filled memory outside of the heap. `address` is only good "
                             "until free(), which refuses while a buffer view is alive.")
      .def(py::init([](uint64_t nbytes, bool hugepages) {
             return std::make_unique<ExportedMemory>(
                 Memory(nbytes, hugepages ? stream::HugePages::yes : stream::HugePages::no));
           }),
           py::arg("nbytes"), py::arg("hugepages") = false)
      .def_property_readonly(
          "address", [](const ExportedMemory& memory) { return reinterpret_cast<uintptr_t>(memory.data()); })
      .def_property_readonly("nbytes", &ExportedMemory::nbytes)
      .def("free", [](ExportedMemory& memory) {
        if (memory.exports() > 0) throw py::buffer_error("cannot free memory while views of it exist");
        memory.free();
      });
}

}  // namespace

void register_stream(py::module_& m) {
  register_memory(m);
  m.def(
      "coalesce", &coalesce, py::arg("ranges"), py::arg("barred"), py::arg("max_gap"),
      "Spans (offset, nbytes) in file order that hold all `ranges`, bridging gaps of at most `max_gap` bytes "
      "that no barred range touches.");
  m.def(
      "plan_staging", &plan_staging, py::arg("ranges"), py::arg("barred"), py::arg("max_gap"),
      py::arg("alignment"),
      "(spans, positions, nbytes): spans are (offset, nbytes, position in the staging buffer), positions[i] "
      "is where ranges[i] begins in it, nbytes is its size.");
  m.def("read_ranges", &read_ranges, py::arg("requests"), py::arg("threads") = 1,
        "Reads each (file, its header or None, offset, nbytes, address) straight to its address; from 4 MiB "
        "in all on `threads` threads. The memory at the addresses must stay alive and unused meanwhile.");
  m.def(
      "plan_tensors",
      [](const Header& header, const std::vector<size_t>& tensors, uint64_t max_gap, uint64_t alignment) {
        return as_tuple(stream::plan_tensors(header, tensors, max_gap, alignment));
      },
      py::arg("header"), py::arg("tensors"), py::arg("max_gap"), py::arg("alignment"),
      "plan_staging for tensors by index: how much memory read_tensors will need, and where they will lie.");
  m.def("read_tensors", &read_tensors, py::arg("file"), py::arg("header"), py::arg("tensors"),
        py::arg("address"), py::arg("nbytes"), py::arg("max_gap"), py::arg("alignment"),
        py::arg("threads") = 1, py::call_guard<py::gil_scoped_release>(),
        "Reads some tensors (by index) into `nbytes` bytes of memory at `address`; returns the position of "
        "each in it. Refuses, before reading, when plan_tensors needs more than that.");
  m.def("copy_ranges", &copy_ranges, py::arg("data"), py::arg("requests"),
        "Copies each (offset, nbytes, address) of `data` to its address.");
}

}  // namespace lora_mmap::bindings
