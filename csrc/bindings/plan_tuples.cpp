#include "bindings/plan_tuples.h"

#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"

namespace py = pybind11;

namespace lora_mmap::bindings {
namespace {

// Fields of one of the tuples that `function` takes, read through the C API: a plan has thousands.
class Fields {
 public:
  Fields(PyObject* object, Py_ssize_t size, const char* function, const char* what)
      : tuple_(object), function_(function) {
    if (!PyTuple_Check(object) || PyTuple_GET_SIZE(object) != size)
      refuse(std::string(what) + " is not a tuple of " + std::to_string(size));
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
  std::string_view text(Py_ssize_t i) const {
    Py_ssize_t size;
    const char* text = PyUnicode_AsUTF8AndSize(item(i), &size);
    if (!text) throw py::error_already_set();
    return {text, static_cast<size_t>(size)};
  }
  DType dtype(Py_ssize_t i) const {
    const std::string_view name = text(i);
    const std::optional<DType> dtype = dtype_from_name(name);
    if (!dtype) refuse("unknown dtype '" + std::string(name) + "'");
    return *dtype;
  }
  PyObject* item(Py_ssize_t i) const { return PyTuple_GET_ITEM(tuple_, i); }
  bool is_none(Py_ssize_t i) const { return item(i) == Py_None; }
  const char* function() const { return function_; }

  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(Fault::argument, "[" + std::string(function_) + "] " + what);
  }

 private:
  PyObject* tuple_;
  const char* function_;
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

Matrix read_matrix(PyObject* object, const char* function, const char* what) {
  return read_matrix(Fields(object, kMatrixFields, function, what));
}

void read_times(PyObject* object, const char* function, Term& term) {
  if (object == Py_None) return;
  term.times_base = PyUnicode_Check(object) && PyUnicode_CompareWithASCIIString(object, "base") == 0;
  if (!term.times_base) term.times = read_matrix(object, function, "what a term is times");
}

Term read_term(PyObject* object, const char* function) {
  constexpr Py_ssize_t kFields = kMatrixFields + 1;
  constexpr Py_ssize_t kAllFields = kFields + 3;
  const bool has_all = PyTuple_Check(object) && PyTuple_GET_SIZE(object) == kAllFields;
  const Fields f(object, has_all ? kAllFields : kFields, function, "a term");
  Term term{read_matrix(f), f.real(kMatrixFields)};
  if (!has_all) return term;
  read_times(f.item(kFields), function, term);
  if (!f.is_none(kFields + 1))
    term.gain = Gain{read_matrix(f.item(kFields + 1), function, "a gain"), f.real(kFields + 2)};
  return term;
}

std::vector<Term> read_terms(const Fields& f, Py_ssize_t i) {
  PyObject* list = f.item(i);
  if (!PyList_Check(list) && !PyTuple_Check(list)) f.refuse("the terms are neither a list nor a tuple");
  std::vector<Term> terms;
  terms.reserve(static_cast<size_t>(PySequence_Fast_GET_SIZE(list)));
  for (Py_ssize_t k = 0; k < PySequence_Fast_GET_SIZE(list); ++k)
    terms.push_back(read_term(PySequence_Fast_GET_ITEM(list, k), f.function()));
  return terms;
}

Job read_job(PyObject* object) {
  const Fields f(object, 10, "fuse", "a job");
  return {f.pointer<void>(0), f.pointer<const void>(1),
          f.integer(2),       f.integer(3),
          f.integer(4),       f.integer(5),
          f.integer(6),       f.integer(7),
          f.dtype(8),         read_terms(f, 9)};
}

std::optional<Layer> read_layer(PyObject* object, const char* what) {
  if (object == Py_None) return std::nullopt;
  const Fields f(object, 5, "step", what);
  if (!py::isinstance<Record>(f.item(1))) f.refuse(std::string(what) + " without a Record");
  return Layer{read_terms(f, 0),
               py::cast<std::shared_ptr<Record>>(py::handle(f.item(1))),
               {f.pointer<const void>(2), f.integer(3), f.integer(4)}};
}

std::optional<Target> read_target(PyObject* object) {
  if (object == Py_None) return std::nullopt;
  const Fields f(object, 3, "step", "an out");
  return Target{f.pointer<void>(0), f.integer(1), f.integer(2)};
}

Step read_step(PyObject* object) {
  const Fields f(object, 9, "step", "a step");
  return {f.pointer<void>(0),
          f.integer(1),
          f.integer(2),
          f.integer(3),
          f.integer(4),
          f.dtype(5),
          read_layer(f.item(6), "old"),
          read_layer(f.item(7), "new"),
          read_target(f.item(8))};
}

Gains read_gains_of(PyObject* object) {
  const Fields f(object, 8, "gains", "a job");
  return {read_job(f.item(0)),      f.integer(1) != 0, f.pointer<const int32_t>(2), f.integer(3),
          f.pointer<const void>(4), f.dtype(5),        f.pointer<const int32_t>(6), f.pointer<void>(7)};
}

Rect read_rect(PyObject* object) {
  const Fields f(object, 9, "copy", "a rectangle");
  return {f.pointer<void>(0), f.pointer<const void>(1),
          f.integer(2),       f.integer(3),
          f.integer(4),       f.integer(5),
          f.integer(6),       f.integer(7),
          f.integer(8)};
}

BranchLayout read_layout(const Fields& f, Py_ssize_t i) {
  const std::string_view name = f.text(i);
  if (name == "down") return BranchLayout::down;
  if (name == "up") return BranchLayout::up;
  if (name == "plain") return BranchLayout::plain;
  f.refuse("layout is '" + std::string(name) + "', expected down, up or plain");
}

FactorWrite read_factor_write(PyObject* object) {
  const Fields f(object, 15, "write_factors", "a job");
  const bool zeros = f.is_none(9);
  return {read_layout(f, 0),
          f.pointer<void>(1),
          f.integer(2),
          f.integer(3),
          f.dtype(4),
          {f.integer(5), f.integer(6)},
          {f.integer(7), f.integer(8)},
          zeros,
          zeros ? nullptr : f.pointer<const void>(9),
          f.dtype(10),
          f.integer(11),
          f.integer(12),
          f.real(13),
          f.pointer<const int32_t>(14)};
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

std::vector<Step> read_steps(const py::list& steps) {
  return read_list(steps, read_step);
}

std::vector<FactorWrite> read_factor_writes(const py::list& jobs) {
  return read_list(jobs, read_factor_write);
}

}  // namespace lora_mmap::bindings
