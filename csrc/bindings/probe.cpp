#include "probe/probe.h"

#include <pybind11/stl.h>

#include "bindings/bindings.h"

namespace py = pybind11;

namespace lora_mmap::bindings {

void register_probe(py::module_& m) {
  const py::call_guard<py::gil_scoped_release> no_gil;
  m.def("probe_isas", probe_isas, "The instruction sets that probe_fma() can measure here, best first.");
  m.def("probe_fma", probe_fma, py::arg("threads"), py::arg("isa"), no_gil,
        "fp32 fused multiply-add throughput of `threads` threads together with the instructions of `isa`, in "
        "FLOP/s.");
  m.def(
      "probe_read_write", probe_read_write, py::arg("threads"), py::arg("nbytes"), no_gil,
      "Bytes read plus written per second when every byte of `nbytes` is changed in place, the fastest way.");
  m.def("probe_copy", probe_copy, py::arg("threads"), py::arg("nbytes"), no_gil,
        "Bytes read plus written per second by memcpy of `nbytes`.");
}

}  // namespace lora_mmap::bindings
