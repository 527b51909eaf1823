// The buffer protocol for objects that own a block of bytes, counting the views that are alive.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <utility>

namespace lora_mmap::bindings {

// Owner has data() and nbytes(). The count is guarded by the GIL.
template <class Owner>
class ExportedBuffer : public Owner {
 public:
  explicit ExportedBuffer(Owner&& owner) : Owner(std::move(owner)) {}
  int64_t exports() const { return exports_; }

  static int get(PyObject* self, Py_buffer* view, int flags) {
    auto& owner = pybind11::cast<ExportedBuffer&>(pybind11::handle(self));
    static char nothing;  // some consumers dislike a null pointer, even of zero bytes
    void* const data = owner.nbytes() ? static_cast<void*>(owner.data()) : &nothing;
    const int rc = PyBuffer_FillInfo(view, self, data, static_cast<Py_ssize_t>(owner.nbytes()), false, flags);
    if (rc == 0) ++owner.exports_;
    return rc;
  }
  static void release(PyObject* self, Py_buffer*) {
    --pybind11::cast<ExportedBuffer&>(pybind11::handle(self)).exports_;
  }

 private:
  int64_t exports_ = 0;
};

template <class Exported>
pybind11::custom_type_setup writable_buffer() {
  return pybind11::custom_type_setup([](PyHeapTypeObject* heap_type) {
    heap_type->as_buffer.bf_getbuffer = &Exported::get;
    heap_type->as_buffer.bf_releasebuffer = &Exported::release;
    heap_type->ht_type.tp_as_buffer = &heap_type->as_buffer;
  });
}

}  // namespace lora_mmap::bindings
