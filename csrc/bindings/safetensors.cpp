#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "bindings/bindings.h"
#include "bindings/mapping.h"
#include "safetensors/contents.h"
#include "safetensors/counters.h"
#include "safetensors/file.h"
#include "safetensors/header.h"
#include "stream/scalars.h"

namespace py = pybind11;

namespace lora_mmap::bindings {
namespace {

using safetensors::File;
using safetensors::Header;

using safetensors::Named;
using safetensors::Tensor;

// os.fspath, then the file system's encoding: any name the system allows comes through unchanged.
std::shared_ptr<File> open_file(const py::object& path) {
  PyObject* encoded = nullptr;
  if (!PyUnicode_FSConverter(path.ptr(), &encoded)) throw py::error_already_set();
  const auto bytes = py::reinterpret_steal<py::bytes>(encoded);
  std::string name = bytes;
  const py::gil_scoped_release unlocked;
  return std::make_shared<File>(std::move(name));
}

py::object path_of(const File& file) {
  const std::string& path = file.path();
  return py::reinterpret_steal<py::object>(
      PyUnicode_DecodeFSDefaultAndSize(path.data(), static_cast<Py_ssize_t>(path.size())));
}

py::tuple identity_of(const File& file) {
  const safetensors::FileIdentity& identity = file.identity();
  return py::make_tuple(identity.device, identity.inode, identity.size, identity.mtime_ns);
}

py::bytes read_bytes(const File& file, uint64_t offset, uint64_t nbytes) {
  file.require_range(offset, nbytes);  // before memory is asked for
  auto bytes =
      py::reinterpret_steal<py::bytes>(PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(nbytes)));
  if (!bytes) throw py::error_already_set();
  char* const destination = PyBytes_AS_STRING(bytes.ptr());
  const py::gil_scoped_release unlocked;
  file.read_exact(offset, nbytes, destination, Named("the bytes asked for"));
  return bytes;
}

void read_into(const File& file, uintptr_t address, uint64_t nbytes, uint64_t offset) {
  if (address == 0 && nbytes > 0) throw Error(Fault::argument, "[read_into] no address to read to");
  file.read_exact(offset, nbytes, reinterpret_cast<void*>(address), Named("the bytes asked for"));
}

std::vector<double> read_scalars(const File& file, const Header& header, const std::vector<size_t>& tensors) {
  return stream::read_scalars(file, header, tensors);
}

Header parse_bytes(const py::bytes& data) {
  const auto view = static_cast<std::string_view>(data);
  const py::gil_scoped_release unlocked;
  return Header::parse(view);
}

py::str text(std::string_view utf8) {
  return py::str(utf8.data(), utf8.size());
}

// One list item per tensor, in offset order.
template <class Item>
py::list per_tensor(const Header& header, Item item) {
  py::list list(header.size());
  for (size_t i = 0; i < header.size(); ++i) list[i] = item(header.tensors()[i]);
  return list;
}

py::tuple shape_of(const Header& header, const Tensor& tensor) {
  py::tuple shape(tensor.rank);
  size_t i = 0;
  for (const uint64_t dim : header.shape(tensor)) shape[i++] = dim;
  return shape;
}

py::object metadata_of(const Header& header) {
  if (!header.metadata()) return py::none();
  py::dict metadata;
  for (const auto& [key, value] : *header.metadata()) metadata[text(key)] = text(value);
  return metadata;
}

size_t index_of(const Header& header, std::string_view name) {
  const std::optional<size_t> index = header.find(name);
  if (index) return *index;
  PyErr_SetObject(PyExc_KeyError, text(name).ptr());
  throw py::error_already_set();
}

void register_file(py::module_& m) {
  const py::call_guard<py::gil_scoped_release> unlocked;
  py::class_<File, std::shared_ptr<File>>(m, "File", "A regular file opened for reading by position.")
      .def(py::init(&open_file), py::arg("path"))
      .def_property_readonly("path", &path_of)
      .def_property_readonly("device", [](const File& file) { return file.identity().device; })
      .def_property_readonly("inode", [](const File& file) { return file.identity().inode; })
      .def_property_readonly("size", &File::size)
      .def_property_readonly("mtime_ns", [](const File& file) { return file.identity().mtime_ns; })
      .def_property_readonly("bytes_read", &File::bytes_read)
      .def_property_readonly("closed", &File::closed)
      .def("identity", &identity_of, "(device, inode, size, mtime_ns) when it was opened.")
      .def(
          "check_unchanged", [](const File& file, const Header* header) { file.check_unchanged(header); },
          py::arg("header") = py::none(), unlocked)
      .def("read", &read_bytes, py::arg("offset"), py::arg("nbytes"))
      .def("read_into", &read_into, py::arg("address"), py::arg("nbytes"), py::arg("offset"), unlocked)
      .def("read_header", &Header::read, unlocked)
      .def("read_scalars", &read_scalars, py::arg("header"), py::arg("tensors"), unlocked)
      .def("map",
           [](const File& file) {
             const py::gil_scoped_release released;
             return std::make_shared<ExportedMapping>(safetensors::Mapping(file));
           })
      .def_property_readonly("is_remote", &File::is_remote)
      .def("close", &File::close, unlocked)
      .def("__enter__", [](const py::object& self) { return self; })
      .def("__exit__", [](File& file, const py::args&) { file.close(); });
}

void register_header(py::module_& m) {
  py::class_<Header, std::shared_ptr<Header>>(m, "Header", "A header that obeys every rule of the format.")
      .def_static("parse", &parse_bytes, py::arg("data"), "From the bytes of a whole file.")
      .def("__len__", &Header::size)
      .def("names",
           [](const Header& header) {
             return per_tensor(header, [](const Tensor& tensor) { return text(tensor.name); });
           })
      .def("dtypes",
           [](const Header& header) {
             return per_tensor(header, [](const Tensor& tensor) { return text(dtype_name(tensor.dtype)); });
           })
      .def("shapes",
           [](const Header& header) {
             return per_tensor(header, [&](const Tensor& tensor) { return shape_of(header, tensor); });
           })
      .def("offsets",
           [](const Header& header) {
             return per_tensor(header,
                               [&](const Tensor& tensor) { return py::int_(header.file_offset(tensor)); });
           })
      .def("nbytes",
           [](const Header& header) {
             return per_tensor(header, [](const Tensor& tensor) { return py::int_(tensor.nbytes()); });
           })
      .def("index", &index_of, py::arg("name"))
      .def("at", &Header::at, py::arg("file_offset"), "What lies there: a tensor's name, for error texts.")
      .def_property_readonly("metadata", &metadata_of)
      .def_property_readonly("header_nbytes", &Header::nbytes);
}

py::dict counters_now() {
  const safetensors::Counters& counters = safetensors::counters();
  py::dict now;
  now["files_opened"] = counters.files_opened.load();
  now["bytes_read"] = counters.bytes_read.load();
  now["headers_parsed"] = counters.headers_parsed.load();
  now["keys_classified"] = counters.keys_classified.load();
  now["bytes_uploaded"] = counters.bytes_uploaded.load();
  now["copies_issued"] = counters.copies_issued.load();
  return now;
}

}  // namespace

void register_safetensors(py::module_& m) {
  register_header(m);
  register_file(m);
  m.def("counters", &counters_now,
        "What this process has opened, read, parsed, classified and uploaded so far.");
}

}  // namespace lora_mmap::bindings
