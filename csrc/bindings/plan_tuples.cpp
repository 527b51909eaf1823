#include "bindings/plan_tuples.h"

#include <optional>
#include <string>

#include "base/error.h"

namespace py = pybind11;

namespace lora_mmap::bindings {
namespace {

// Fields of one of the tuples that fuse() and copy() take, read through the C API: a plan has thousands.
class Fields {
 public:
  Fields(PyObject* object, Py_ssize_t size, const char* what) : tuple_(object) {
    if (!PyTuple_Check(object) || PyTuple_GET_SIZE(object) != size)
      throw Error(Fault::argument, std::string(what) + " is not a tuple of " + std::to_string(size));
  }
  int64_t integer(Py_ssize_t i) const {
    const long long value = PyLong_AsLongLong(item(i));
    if (value == -1 && PyErr_Occurred()) throw py::error_already_set();
    return value;
  }
  template <class T>
  T* pointer(Py_ssize_t i) const {
    void* address = PyLong_AsVoidPtr(item(i));
    if (!address && PyErr_Occurred()) throw py::error_already_set();
    return static_cast<T*>(address);
  }
  double real(Py_ssize_t i) const {
    const double value = PyFloat_AsDouble(item(i));
    if (value == -1.0 && PyErr_Occurred()) throw py::error_already_set();
    return value;
  }
  DType dtype(Py_ssize_t i) const {
    Py_ssize_t size;
    const char* name = PyUnicode_AsUTF8AndSize(item(i), &size);
    if (!name) throw py::error_already_set();
    const std::optional<DType> dtype = dtype_from_name({name, static_cast<size_t>(size)});
    if (!dtype) throw Error(Fault::argument, std::string("[fuse] unknown dtype '") + name + "'");
    return *dtype;
  }
  PyObject* item(Py_ssize_t i) const { return PyTuple_GET_ITEM(tuple_, i); }

 private:
  PyObject* tuple_;
};

constexpr Py_ssize_t kMatrixFields = 11;

// The first fields of a tuple.
Matrix read_matrix(const Fields& f) {
  return {f.pointer<const void>(0),
          f.dtype(1),
          f.integer(2),
          f.integer(3),
          f.pointer<const void>(4),
          f.dtype(5),
          f.integer(6),
          f.integer(7),
          f.integer(8),
          f.pointer<const int32_t>(9),
          f.pointer<const int32_t>(10)};
}

Matrix read_matrix(PyObject* object, const char* what) {
  return read_matrix(Fields(object, kMatrixFields, what));
}

void read_times(PyObject* object, Term& term) {
  if (object == Py_None) return;
  term.times_base = PyUnicode_Check(object) && PyUnicode_CompareWithASCIIString(object, "base") == 0;
  if (!term.times_base) term.times = read_matrix(object, "[fuse] what a term is times");
}

Term read_term(PyObject* object) {
  constexpr Py_ssize_t kFields = kMatrixFields + 1;
  constexpr Py_ssize_t kAllFields = kFields + 3;
  const bool has_all = PyTuple_Check(object) && PyTuple_GET_SIZE(object) == kAllFields;
  const Fields f(object, has_all ? kAllFields : kFields, "[fuse] a term");
  Term term{read_matrix(f), f.real(kMatrixFields)};
  if (!has_all) return term;
  read_times(f.item(kFields), term);
  PyObject* factors = f.item(kFields + 1);
  if (factors != Py_None) term.gain = Gain{read_matrix(factors, "[fuse] a gain"), f.real(kFields + 2)};
  return term;
}

Job read_job(PyObject* object) {
  const Fields f(object, 10, "[fuse] a job");
  Job job{f.pointer<void>(0), f.pointer<const void>(1),
          f.integer(2),       f.integer(3),
          f.integer(4),       f.integer(5),
          f.integer(6),       f.integer(7),
          f.dtype(8),         {}};
  PyObject* terms = f.item(9);
  if (!PyList_Check(terms) && !PyTuple_Check(terms))
    throw Error(Fault::argument, "[fuse] a job's terms are neither a list nor a tuple");
  job.terms.reserve(static_cast<size_t>(PySequence_Fast_GET_SIZE(terms)));
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(terms); ++i)
    job.terms.push_back(read_term(PySequence_Fast_GET_ITEM(terms, i)));
  return job;
}

Gains read_gains_of(PyObject* object) {
  const Fields f(object, 8, "[gains] a job");
  return {read_job(f.item(0)),      f.integer(1) != 0, f.pointer<const int32_t>(2), f.integer(3),
          f.pointer<const void>(4), f.dtype(5),        f.pointer<const int32_t>(6), f.pointer<void>(7)};
}

Rect read_rect(PyObject* object) {
  const Fields f(object, 9, "[copy] a rectangle");
  return {f.pointer<void>(0), f.pointer<const void>(1),
          f.integer(2),       f.integer(3),
          f.integer(4),       f.integer(5),
          f.integer(6),       f.integer(7),
          f.integer(8)};
}

template <class T>
std::vector<T> read_list(const py::list& list, T (*read)(PyObject*)) {
  std::vector<T> items;
  items.reserve(list.size());
  for (const py::handle item : list) items.push_back(read(item.ptr()));
  return items;
}

}  // namespace

std::vector<Job> read_jobs(const py::list& jobs) {
  return read_list(jobs, read_job);
}

std::vector<Gains> read_gains(const py::list& jobs) {
  return read_list(jobs, read_gains_of);
}

std::vector<Rect> read_rects(const py::list& rects) {
  return read_list(rects, read_rect);
}

}  // namespace lora_mmap::bindings
