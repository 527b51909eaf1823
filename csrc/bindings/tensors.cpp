// Mapped bytes as tensors of Python's tensor library, made through DLPack: the core never links that library.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "bindings/bindings.h"
#include "bindings/dlpack.h"
#include "bindings/mapping.h"
#include "safetensors/header.h"

namespace py = pybind11;

namespace lora_mmap::bindings {
namespace {

using safetensors::Header;
using safetensors::Tensor;

constexpr size_t kDTypes = static_cast<size_t>(DType::F6_E3M2) + 1;

// How tensors of one element type reach the library: as the type `wire`, then viewed as `view` where the
// library has no DLPack code for the type itself.
struct Route {
  dlpack::DataType wire;
  uint64_t elements_per_wire = 1;  // 2 for F4, which travels in bytes
  py::object view;                 // null: no view needed
};

DType dtype_named(const std::string& name) {
  const std::optional<DType> dtype = dtype_from_name(name);
  if (!dtype) throw Error(Fault::argument, "[TensorMaker] no dtype is named " + name);
  return *dtype;
}

std::string joined(std::span<const uint64_t> shape) {
  std::string text;
  for (const uint64_t dim : shape) text += (text.empty() ? "" : ", ") + std::to_string(dim);
  return text;
}

// The header's `shape` as the library's: its limit holds for what it gets, so packing comes first. `named()`
// says which tensor of which file.
template <typename Named>
std::vector<int64_t> wire_shape(std::span<const uint64_t> shape, uint64_t elements_per_wire,
                                const Named& named) {
  if (elements_per_wire > 1 && (shape.empty() || shape.back() % elements_per_wire != 0))
    throw Error(Fault::header, "f4_x2 dtype requires that the last dim be divisible by 2 in torch: got [" +
                                   joined(shape) + "]: " + named());
  std::vector<int64_t> dims;
  dims.reserve(shape.size());
  uint64_t largest = 0;
  for (size_t i = 0; i < shape.size(); ++i) {
    const uint64_t dim = i + 1 < shape.size() ? shape[i] : shape[i] / elements_per_wire;
    largest = std::max(largest, dim);
    dims.push_back(static_cast<int64_t>(dim));
  }
  if (largest > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
    throw Error(Fault::header, "dimension " + std::to_string(largest) +
                                   " is more than a tensor can have (2^63 - 1): " + named());
  return dims;
}

// Turns mapped bytes into tensors with `from_dlpack`. Knows the routes of all element types the library has.
class TensorMaker {
 public:
  // routes: dtype name -> (name of the dtype to travel as, the library's dtype to view it as or None).
  TensorMaker(py::object from_dlpack, const py::dict& routes) : from_dlpack_(std::move(from_dlpack)) {
    for (const auto& [key, value] : routes) {
      const DType dtype = dtype_named(py::cast<std::string>(key));
      const auto [wire_name, view] = py::cast<std::pair<std::string, py::object>>(value);
      const DType wire = dtype_named(wire_name);
      const std::optional<dlpack::DataType> type = dlpack::data_type(wire);
      if (!type || dtype_bits(wire) % dtype_bits(dtype) != 0)
        throw Error(Fault::argument,
                    "[TensorMaker] " + std::string(dtype_name(dtype)) + " cannot travel as " + wire_name);
      routes_[static_cast<size_t>(dtype)] =
          Route{*type, dtype_bits(wire) / dtype_bits(dtype), view.is_none() ? py::object() : view};
    }
  }

  py::object tensor(const std::shared_ptr<ExportedMapping>& mapping, const Header& header,
                    size_t index) const {
    if (index >= header.size())
      throw Error(Fault::argument, "[TensorMaker.tensor] no tensor " + std::to_string(index) +
                                       ": the header has " + std::to_string(header.size()));
    return make(mapping, header, header.tensors()[index]);
  }

  py::dict tensors(const std::shared_ptr<ExportedMapping>& mapping, const Header& header) const {
    py::dict made;
    for (const Tensor& tensor : header.tensors())
      made[py::str(tensor.name.data(), tensor.name.size())] = make(mapping, header, tensor);
    return made;
  }

 private:
  py::object make(const std::shared_ptr<ExportedMapping>& mapping, const Header& header,
                  const Tensor& tensor) const {
    const auto named = [&] { return mapping->path() + ": " + quoted(tensor); };
    const std::optional<Route>& route = routes_[static_cast<size_t>(tensor.dtype)];
    if (!route)
      throw Error(Fault::header,
                  "Dtype not understood: " + std::string(dtype_name(tensor.dtype)) + ": " + named());
    const uint64_t offset = header.file_offset(tensor);
    if (offset > mapping->nbytes() || tensor.nbytes() > mapping->nbytes() - offset)
      throw Error(Fault::argument, "[TensorMaker] beyond the mapping, so not its header: " + named());
    const std::vector<int64_t> shape = wire_shape(header.shape(tensor), route->elements_per_wire, named);
    // An empty tensor may have dimensions whose product no stride can hold. from_dlpack would throw then, and
    // torch 2.13 frees a capsule twice when it does; reshape takes any of them.
    const bool empty = tensor.nbytes() == 0;
    constexpr int64_t kFlat = 0;
    py::object made = from_dlpack_(
        dlpack::capsule(mapping, empty ? nullptr : mapping->data() + offset, route->wire,
                        empty ? std::span<const int64_t>(&kFlat, 1) : std::span<const int64_t>(shape)));
    if (route->view) made = made.attr("view")(route->view);
    return empty ? made.attr("reshape")(shape) : made;
  }

  py::object from_dlpack_;
  std::array<std::optional<Route>, kDTypes> routes_;
};

// One zero of that type, to find out whether a library takes it; None where DLPack has no code for it.
py::object dlpack_sample(const std::string& dtype) {
  const std::optional<dlpack::DataType> type = dlpack::data_type(dtype_named(dtype));
  if (!type) return py::none();
  const auto zero = std::make_shared<std::array<std::byte, 8>>();
  constexpr int64_t kOne = 1;
  return dlpack::capsule(zero, zero->data(), *type, std::span(&kOne, 1));
}

}  // namespace

void register_tensors(py::module_& m) {
  py::class_<ExportedMapping, std::shared_ptr<ExportedMapping>>(
      m, "Mapping", writable_buffer<ExportedMapping>(),
      "A whole file, copy-on-write. A touch after somebody truncated the file is a SIGBUS.")
      .def_property_readonly("nbytes", &ExportedMapping::nbytes)
      .def_property_readonly("address", [](const ExportedMapping& mapping) {
        return reinterpret_cast<uintptr_t>(mapping.data());
      });
  py::class_<TensorMaker>(m, "TensorMaker",
                          "Makes zero-copy tensors of mapped bytes. `routes` is {dtype name: (dtype name to "
                          "travel through DLPack as, dtype to view it as or None)}.")
      .def(py::init<py::object, const py::dict&>(), py::arg("from_dlpack"), py::arg("routes"))
      .def("tensor", &TensorMaker::tensor, py::arg("mapping"), py::arg("header"), py::arg("index"))
      .def("tensors", &TensorMaker::tensors, py::arg("mapping"), py::arg("header"),
           "{name: tensor} in the order of the file. Each tensor has a storage of its own.");
  m.def("dlpack_sample", &dlpack_sample, py::arg("dtype"),
        "A DLPack capsule of one zero of that dtype, None where DLPack has no code for it.");
}

}  // namespace lora_mmap::bindings
