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
#include "undo/file_restore.h"

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

// An item and its record behind it.
FileRestore restore_item_from(const py::tuple& item) {
  constexpr size_t kFields = std::tuple_size_v<PyPart>;
  if (item.size() != kFields + 1)
    throw Error(Fault::argument,
                "[restore_from_file] an item is not a tuple of " + std::to_string(kFields + 1));
  const py::tuple part = item[py::slice(0, kFields, 1)];
  return {part_from("restore_from_file", part.cast<PyPart>()), item[kFields].cast<std::shared_ptr<Record>>()};
}

std::vector<std::tuple<int64_t, int64_t, int64_t>> restore(const std::vector<py::tuple>& list, int threads,
                                                           bool force,
                                                           const std::optional<std::string>& isa) {
  std::vector<FileRestore> items;
  for (const py::tuple& item : list) items.push_back(restore_item_from(item));
  std::vector<std::tuple<int64_t, int64_t, int64_t>> foreign;
  without_gil([&] {
    for (const ForeignTile& tile : restore_from_file(items, threads, force, isa))
      foreign.emplace_back(tile.step, tile.row, tile.col);
  });
  return foreign;
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
  m.def("restore_from_file", restore, py::arg("items"), py::arg("threads"), py::arg("force") = false,
        py::arg("isa") = py::none(),
        "Writes them over the tiles that were fused into: items of equals_file() with the weight's Record "
        "behind\n"
        "them. Returns the tiles (index, row, col) that hold something else than their record says, "
        "ascending;\n"
        "such a tile stays, and the call stops there, unless `force`.");
}

}  // namespace lora_mmap::bindings
