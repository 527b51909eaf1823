#include <pybind11/pybind11.h>

#include "base/error.h"
#include "bindings/bindings.h"

namespace py = pybind11;

namespace lora_mmap::bindings {
namespace {

const char* exception_name(Fault fault) {
  switch (fault) {
    case Fault::header:
      return "HeaderError";
    case Fault::read:
      return "ReadError";
    case Fault::closed:
      return "ClosedError";
    case Fault::adapter:
      return "AdapterError";
    case Fault::pattern:
      return "PatternError";
    case Fault::argument:
      return "ArgumentError";
    case Fault::cuda:
      return "CudaError";
  }
  return "LoraMmapError";
}

// Paths come into messages as the file system gave them, so neither text is promised to be UTF-8.
py::object text(const char* bytes) {
  return py::reinterpret_steal<py::object>(PyUnicode_DecodeFSDefault(bytes));
}

void raise(const Error& error) {
  try {
    const py::object type = py::module_::import("lora_mmap.errors").attr(exception_name(error.fault()));
    PyErr_SetObject(type.ptr(), text(error.what()).ptr());
  } catch (py::error_already_set& failed) {
    failed.restore();
  }
}

// OSError(errno, text, filename) picks FileNotFoundError, PermissionError, IsADirectoryError ... by itself.
void raise(const OsError& error) {
  const py::tuple arguments = py::make_tuple(error.code(), text(error.what()), text(error.path().c_str()));
  PyErr_SetObject(PyExc_OSError, arguments.ptr());
}

}  // namespace

void register_errors() {
  py::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const Error& error) {
      raise(error);
    } catch (const OsError& error) {
      raise(error);
    }
  });
}

}  // namespace lora_mmap::bindings
