#include "cuda/driver/handles.h"

#include <atomic>

namespace lora_mmap::cuda {
namespace {

std::atomic<size_t> pinned_nbytes{0};

// What a destructor cannot report has no other way out: the result is dropped on purpose.
template <class Function, class... Args>
void quietly(const Function Driver::* function, Args... args) noexcept {
  if (const Driver* const driver = loaded_driver()) static_cast<void>((driver->*function).result(args...));
}

CUevent make_event(Timing timing) {
  CUevent event = nullptr;
  driver().cuEventCreate(&event, timing == Timing::yes ? CU_EVENT_DEFAULT : CU_EVENT_DISABLE_TIMING);
  return event;
}

CUstream make_stream() {
  CUstream stream = nullptr;
  driver().cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
  return stream;
}

void* allocate_pinned(size_t nbytes) {
  void* address = nullptr;
  driver().cuMemHostAlloc(&address, nbytes, CU_MEMHOSTALLOC_PORTABLE);
  return address;
}

CUmodule load_module(const void* image) {
  CUmodule module = nullptr;
  driver().cuModuleLoadData(&module, image);
  return module;
}

}  // namespace

void destroy(CUevent event) noexcept {
  quietly(&Driver::cuEventDestroy, event);
}

void destroy(CUstream stream) noexcept {
  quietly(&Driver::cuStreamDestroy, stream);
}

void destroy(CUmodule module) noexcept {
  quietly(&Driver::cuModuleUnload, module);
}

void free_pinned(void* address) noexcept {
  quietly(&Driver::cuMemFreeHost, address);
}

Event::Event(Timing timing) : handle_(make_event(timing)) {}

void Event::record(CUstream stream) {
  driver().cuEventRecord(get(), stream);
}

bool Event::ready() const {
  const CUresult result = driver().cuEventQuery.result(get());
  if (result == CUDA_ERROR_NOT_READY) return false;
  check(result, "cuEventQuery");
  return true;
}

void Event::wait() const {
  driver().cuEventSynchronize(get());
}

Stream::Stream() : handle_(make_stream()) {}

void Stream::wait() const {
  driver().cuStreamSynchronize(get());
}

PinnedMemory::PinnedMemory(size_t nbytes) : handle_(allocate_pinned(nbytes)), nbytes_(nbytes) {
  pinned_nbytes += nbytes;
}

PinnedMemory::PinnedMemory(PinnedMemory&& other) noexcept
    : handle_(std::move(other.handle_)), nbytes_(std::exchange(other.nbytes_, 0)) {}

PinnedMemory& PinnedMemory::operator=(PinnedMemory&& other) noexcept {
  std::swap(handle_, other.handle_);
  std::swap(nbytes_, other.nbytes_);
  return *this;
}

void PinnedMemory::free() noexcept {
  handle_.reset();
  pinned_nbytes -= std::exchange(nbytes_, 0);
}

void PinnedMemory::abandon() noexcept {
  handle_.release();
  nbytes_ = 0;
}

size_t PinnedMemory::total_nbytes() noexcept {
  return pinned_nbytes.load();
}

Module::Module(const void* image) : handle_(load_module(image)) {}

CUfunction Module::function(const char* name) const {
  CUfunction function = nullptr;
  driver().cuModuleGetFunction(&function, handle_.get(), name);
  return function;
}

}  // namespace lora_mmap::cuda
