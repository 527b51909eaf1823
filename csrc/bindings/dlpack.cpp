#include "bindings/dlpack.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace py = pybind11;

namespace lora_mmap::bindings::dlpack {
namespace {

enum Code : uint8_t {
  kInt = 0,
  kUInt = 1,
  kFloat = 2,
  kBfloat = 4,
  kComplex = 5,
  kBool = 6,
  kFloat8_e4m3fn = 10,
  kFloat8_e4m3fnuz = 11,
  kFloat8_e5m2 = 12,
  kFloat8_e5m2fnuz = 13,
  kFloat8_e8m0fnu = 14,
};

constexpr int32_t kCpu = 1;
constexpr const char* kFresh = "dltensor";  // a consumer renames the capsule when it takes the tensor over

struct Device {
  int32_t type;
  int32_t id;
};

struct Tensor {
  void* data;
  Device device;
  int32_t ndim;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;  // null: row-major and compact
  uint64_t byte_offset;
};

struct ManagedTensor {
  Tensor tensor;
  void* context;
  void (*deleter)(ManagedTensor*);
};

static_assert(sizeof(DataType) == 4 && sizeof(Tensor) == 48 && sizeof(ManagedTensor) == 64);

// What `context` points to: lives as long as the consumer's tensor.
struct Holder {
  ManagedTensor managed;
  std::shared_ptr<const void> owner;
  std::unique_ptr<int64_t[]> long_shape;
  int64_t short_shape[4];
};

void release(ManagedTensor* managed) {
  delete static_cast<Holder*>(managed->context);
}

void drop_unused(PyObject* capsule) {
  if (!PyCapsule_IsValid(capsule, kFresh)) return;  // somebody took it over
  auto* const managed = static_cast<ManagedTensor*>(PyCapsule_GetPointer(capsule, kFresh));
  managed->deleter(managed);
}

}  // namespace

std::optional<DataType> data_type(DType dtype) {
  const auto bits = static_cast<uint8_t>(dtype_bits(dtype));
  switch (dtype) {
    case DType::BOOL:
      return DataType{kBool, bits};
    case DType::U8:
    case DType::U16:
    case DType::U32:
    case DType::U64:
      return DataType{kUInt, bits};
    case DType::I8:
    case DType::I16:
    case DType::I32:
    case DType::I64:
      return DataType{kInt, bits};
    case DType::F16:
    case DType::F32:
    case DType::F64:
      return DataType{kFloat, bits};
    case DType::BF16:
      return DataType{kBfloat, bits};
    case DType::C64:
      return DataType{kComplex, bits};
    case DType::F8_E4M3:
      return DataType{kFloat8_e4m3fn, bits};
    case DType::F8_E4M3FNUZ:
      return DataType{kFloat8_e4m3fnuz, bits};
    case DType::F8_E5M2:
      return DataType{kFloat8_e5m2, bits};
    case DType::F8_E5M2FNUZ:
      return DataType{kFloat8_e5m2fnuz, bits};
    case DType::F8_E8M0:
      return DataType{kFloat8_e8m0fnu, bits};
    case DType::F4:
    case DType::F6_E2M3:
    case DType::F6_E3M2:
      return std::nullopt;
  }
  return std::nullopt;
}

py::object capsule(std::shared_ptr<const void> owner, std::byte* data, DataType type,
                   std::span<const int64_t> shape) {
  auto holder = std::make_unique<Holder>();
  int64_t* dims = holder->short_shape;
  if (shape.size() > std::size(holder->short_shape)) {
    holder->long_shape = std::make_unique_for_overwrite<int64_t[]>(shape.size());
    dims = holder->long_shape.get();
  }
  std::copy(shape.begin(), shape.end(), dims);
  holder->owner = std::move(owner);
  holder->managed = {
      {data, {kCpu, 0}, static_cast<int32_t>(shape.size()), type, dims, nullptr, 0}, holder.get(), &release};
  PyObject* const made = PyCapsule_New(&holder->managed, kFresh, &drop_unused);
  if (!made) throw py::error_already_set();
  holder.release();  // the capsule's now
  return py::reinterpret_steal<py::object>(made);
}

}  // namespace lora_mmap::bindings::dlpack
