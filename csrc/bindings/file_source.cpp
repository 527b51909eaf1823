#include "undo/file_source.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "base/error.h"
#include "bindings/bindings.h"
#include "bindings/without_gil.h"
#include "safetensors/header.h"

namespace py = pybind11;

namespace lora_mmap::bindings {
namespace {

using safetensors::File;
using safetensors::Header;

// FileValues of lora_mmap/native_types.py.
using PyPart = std::tuple<std::shared_ptr<File>, std::shared_ptr<Header>, uint64_t, std::string, int64_t,
                          int64_t, uintptr_t, uintptr_t, int64_t, int64_t, int64_t, int64_t, std::string>;

DType dtype_of(const char* function, const std::string& name) {
  const std::optional<DType> dtype = dtype_from_name(name);
  if (!dtype) throw Error(Fault::argument, "[" + std::string(function) + "] unknown dtype '" + name + "'");
  return *dtype;
}

FilePart part_from(const char* function, const PyPart& part) {
  const auto& [file, header, offset, file_dtype, file_row_stride, file_col_stride, col_map, address, rows,
               cols, row_stride, col_stride, dtype] = part;
  return {file.get(),
          header.get(),
          offset,
          dtype_of(function, file_dtype),
          file_row_stride,
          file_col_stride,
          reinterpret_cast<const int32_t*>(col_map),
          reinterpret_cast<void*>(address),
          rows,
          cols,
          row_stride,
          col_stride,
          dtype_of(function, dtype)};
}

std::vector<FilePart> parts_from(const char* function, const std::vector<PyPart>& items) {
  std::vector<FilePart> parts;
  parts.reserve(items.size());
  for (const PyPart& item : items) parts.push_back(part_from(function, item));
  return parts;
}

std::vector<bool> equals(const std::vector<PyPart>& items, int threads,
                         const std::optional<std::string>& isa) {
  const std::vector<FilePart> parts = parts_from("equals_file", items);
  std::vector<bool> found;
  without_gil([&] { found = equals_file(parts, threads, isa); });
  return found;
}

void read(const std::vector<PyPart>& items, int threads, const std::optional<std::string>& isa) {
  const std::vector<FilePart> parts = parts_from("read_converted", items);
  without_gil([&] { read_converted(parts, threads, isa); });
}

}  // namespace

void register_file_source(py::module_& m) {
  m.def(
      "equals_file", equals, py::arg("items"), py::arg("threads"), py::arg("isa") = py::none(),
      "Which weights have, bit for bit, the values of a file, rounded to their dtype. An item: (file, "
      "header,\n"
      "offset, file_dtype, file_row_stride, file_col_stride, col_map or 0, address, rows, cols, row_stride,\n"
      "col_stride, dtype). Offset in bytes, strides in elements.");
  m.def("read_converted", read, py::arg("items"), py::arg("threads"), py::arg("isa") = py::none(),
        "Writes those values to the addresses of items as equals_file() has them.");
}

}  // namespace lora_mmap::bindings
