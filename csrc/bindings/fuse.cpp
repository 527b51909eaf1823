#include "fuse/fuse.h"

#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "bindings/plan_tuples.h"
#include "bindings/without_gil.h"
#include "fuse/copy.h"
#include "fuse/gains.h"
#include "fuse/isa.h"

namespace py = pybind11;

namespace lora_mmap::bindings {
namespace {

std::vector<int64_t> fuse_jobs(const py::list& list, int threads, const std::optional<std::string>& isa,
                               size_t scratch_nbytes) {
  const std::vector<Job> jobs = read_jobs(list);
  std::vector<int64_t> overflowed;
  without_gil([&] { overflowed = fuse(jobs, threads, isa, scratch_nbytes); });
  return overflowed;
}

size_t scratch_nbytes_of(const py::list& list, int threads, const std::optional<std::string>& isa) {
  return fuse_scratch_nbytes(read_jobs(list), threads, isa);
}

std::vector<int64_t> compute_gains(const py::list& list, int threads, const std::optional<std::string>& isa,
                                   size_t scratch_nbytes) {
  const std::vector<Gains> jobs = read_gains(list);
  std::vector<int64_t> not_finite;
  without_gil([&] { not_finite = gains(jobs, threads, isa, scratch_nbytes); });
  return not_finite;
}

void copy_rects(const py::list& list, int threads) {
  const std::vector<Rect> rects = read_rects(list);
  without_gil([&] { copy(rects, threads); });
}

std::vector<std::string> isa_names() {
  std::vector<std::string> names;
  for (const Kernel* kernel : available_kernels()) names.emplace_back(kernel->name());
  return names;
}

}  // namespace

void register_fuse(py::module_& m) {
  m.def(
      "fuse", fuse_jobs, py::arg("jobs"), py::arg("threads"), py::arg("isa") = py::none(),
      py::arg("scratch_nbytes") = kScratchNbytes,
      "Fuses every job: (weight, base, rows, cols, weight_row_stride, weight_col_stride, base_row_stride,\n"
      "base_col_stride, dtype, terms). A matrix: (down, down_dtype, down_row_stride, down_col_stride, up,\n"
      "up_dtype, up_row_stride, up_col_stride, rank or -1, row_map or 0, col_map or 0). A term: a matrix's\n"
      "fields and scale, or those and (times: a matrix, \"base\" or None; gain: a matrix or None; its "
      "weight).\n"
      "Addresses as integers, strides in elements. Returns the indices of the jobs that overflowed,\n"
      "ascending.");
  m.def("gains", compute_gains, py::arg("jobs"), py::arg("threads"), py::arg("isa") = py::none(),
        py::arg("scratch_nbytes") = kScratchNbytes,
        "Computes magnitude / norm of base + term: (a job of fuse() with one term, by_columns, groups or 0,\n"
        "n_groups, magnitude, magnitude_dtype, magnitude_map or 0, out). Returns the indices of the jobs "
        "with a\n"
        "norm or result that is not finite, ascending.");
  m.def("fuse_scratch_nbytes", scratch_nbytes_of, py::arg("jobs"), py::arg("threads"),
        py::arg("isa") = py::none(), "The most memory that fuse() of the same would take for itself.");
  m.def("copy", copy_rects, py::arg("rects"), py::arg("threads"),
        "Copies rectangles: (dst, src, rows, cols, dst_row_stride, dst_col_stride, src_row_stride,\n"
        "src_col_stride, element_nbytes). Addresses as integers, strides in elements.");
  m.def(
      "isa", [] { return std::string(choose_kernel().name()); },
      "The instruction set that fuse() uses: the best of isas(), or the one in LORA_MMAP_ISA.");
  m.def("isas", isa_names, "The instruction sets that this build and CPU have, best first.");
}

}  // namespace lora_mmap::bindings
