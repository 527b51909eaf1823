#include <pybind11/stl.h>

#include <string>

#include "base/error.h"
#include "base/fault_points.h"
#include "bindings/bindings.h"
#include "bindings/plan_tuples.h"
#include "bindings/without_gil.h"
#include "undo/record.h"
#include "undo/step.h"
#include "undo/tile_hash.h"

namespace py = pybind11;

namespace lora_mmap::bindings {
namespace {

using Tile = std::tuple<int64_t, int64_t, int64_t>;

std::shared_ptr<Record> make_record(int64_t rows, int64_t cols, const std::string& dtype_name,
                                    bool corrections) {
  const std::optional<DType> dtype = dtype_from_name(dtype_name);
  if (!dtype) throw Error(Fault::argument, "[Record] unknown dtype '" + dtype_name + "'");
  return std::make_shared<Record>(rows, cols, *dtype, corrections);
}

std::pair<std::vector<int64_t>, std::vector<Tile>> take_steps(const py::list& list, int threads,
                                                              const std::optional<std::string>& isa,
                                                              size_t scratch_nbytes, bool force) {
  const std::vector<Step> steps = read_steps(list);
  StepResult result;
  without_gil([&] { result = step(steps, threads, isa, scratch_nbytes, force); });
  std::vector<Tile> foreign;
  for (const ForeignTile& tile : result.foreign) foreign.emplace_back(tile.step, tile.row, tile.col);
  return {std::move(result.overflowed), std::move(foreign)};
}

uint64_t hash_at(uintptr_t address, size_t nbytes, int threads) {
  uint64_t hash = 0;
  without_gil([&] { hash = hash_bytes(reinterpret_cast<const void*>(address), nbytes, threads); });
  return hash;
}

void arm_fault_at(const std::string& name, int64_t countdown) {
  const std::optional<FaultPoint> point = fault_point_from_name(name);
  if (!point)
    throw Error(Fault::argument, "[arm_fault] no point '" + name + "', expected encode, tile or fit");
  arm_fault(*point, countdown);
}

void register_record(py::module_& m) {
  py::class_<Record, std::shared_ptr<Record>>(
      m, "Record",
      "What is kept of one rectangle of a weight: for each tile a hash of what stands there, a state, and\n"
      "with `corrections` what undo cannot compute. dtype: F16, BF16 or F32; F64 without corrections.")
      .def(py::init(&make_record), py::arg("rows"), py::arg("cols"), py::arg("dtype"), py::arg("corrections"))
      .def_property_readonly("nbytes", &Record::nbytes)
      .def_property_readonly("backup_nbytes", &Record::backup_nbytes)
      .def_property_readonly("written", &Record::written)
      .def_property_readonly("tiles", [](const Record& record) { return record.grid().tiles(); })
      .def_property_readonly("tile_rows", [](const Record& record) { return record.grid().tile_rows(); })
      .def_property_readonly("tile_cols", [](const Record& record) { return record.grid().tile_cols(); })
      .def_property_readonly("has_corrections", &Record::has_corrections)
      .def("forget_corrections", &Record::forget_corrections);
}

}  // namespace

void register_undo(py::module_& m) {
  register_record(m);
  m.def("step", take_steps, py::arg("steps"), py::arg("threads"), py::arg("isa") = py::none(),
        py::arg("scratch_nbytes") = kScratchNbytes, py::arg("force") = false,
        "Takes weights from old terms to new ones: (weight, rows, cols, row_stride, col_stride, dtype, old, "
        "new,\n"
        "out). Old: None or (terms, Record, pristine or 0, its row stride, its col stride). New: None or\n"
        "(terms, Record, base or 0, its row stride, its col stride). Out: None or (address, row_stride,\n"
        "col_stride). Terms as fuse() has them. Returns the indices of the steps that overflowed and the "
        "tiles\n"
        "(index, row, col) that hold something else than their record says, both ascending.");
  m.def("hash_bytes", hash_at, py::arg("address"), py::arg("nbytes"), py::arg("threads") = 1,
        "64 bits that change for certain with any one aligned value of up to 8 bytes.");
  m.def("arm_fault", arm_fault_at, py::arg("point"), py::arg("countdown"),
        "Makes the countdown-th arrival at \"encode\", \"tile\" or \"fit\" run out of memory; 0: none. For "
        "tests.");
}

}  // namespace lora_mmap::bindings
