// What the driver hands out, each owned by one object. Move-only. All need the device's context to be
// current, also when they are destroyed; destruction never throws and does nothing once the driver is gone (a
// forked child, the end of the process). Constructors and methods throw Error(Fault::cuda) unless noexcept.
#pragma once

#include <cstddef>
#include <utility>

#include "cuda/driver/driver.h"

namespace lora_mmap::cuda {

// Calls `Destroy`, a noexcept function, on what it holds.
template <class T, void (*Destroy)(T) noexcept>
class Handle {
 public:
  Handle() = default;
  explicit Handle(T value) noexcept : value_(value) {}
  ~Handle() { reset(); }
  Handle(Handle&& other) noexcept : value_(std::exchange(other.value_, nullptr)) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(value_, other.value_);
    return *this;
  }
  T get() const noexcept { return value_; }
  T release() noexcept { return std::exchange(value_, nullptr); }
  void reset() noexcept {
    if (T value = release()) Destroy(value);
  }

 private:
  T value_ = nullptr;
};

void destroy(CUevent event) noexcept;
void destroy(CUstream stream) noexcept;
void destroy(CUmodule module) noexcept;
void free_pinned(void* address) noexcept;

enum class Timing { no, yes };

// A place in a stream. May be destroyed while a stream still has to reach it or waits for it.
class Event {
 public:
  explicit Event(Timing timing = Timing::no);
  CUevent get() const noexcept { return handle_.get(); }
  void record(CUstream stream);
  bool ready() const;                             // an event that was never recorded is
  void wait() const;                              // blocks this thread
  void abandon() noexcept { handle_.release(); }  // never to be destroyed: its context cannot be entered

 private:
  Handle<CUevent, destroy> handle_;
};

// Does not synchronise with the legacy default stream. Drain it before it is destroyed.
class Stream {
 public:
  Stream();
  CUstream get() const noexcept { return handle_.get(); }
  void wait() const;  // until all work in it is done; blocks this thread

 private:
  Handle<CUstream, destroy> handle_;
};

// Page-locked memory that every device may copy from and to. Cached by the CPU, never write-combined: it is
// read as well as written. No copy may be in flight when it is destroyed.
class PinnedMemory {
 public:
  PinnedMemory() = default;  // none
  explicit PinnedMemory(size_t nbytes);
  ~PinnedMemory() { free(); }
  PinnedMemory(PinnedMemory&& other) noexcept;
  PinnedMemory& operator=(PinnedMemory&& other) noexcept;

  std::byte* data() const noexcept { return static_cast<std::byte*>(handle_.get()); }
  size_t nbytes() const noexcept { return nbytes_; }
  void free() noexcept;
  void abandon() noexcept;  // never to be freed: a copy is in flight whose end cannot be waited for

  static size_t total_nbytes() noexcept;  // pinned by this library now, abandoned memory included

 private:
  Handle<void*, free_pinned> handle_;
  size_t nbytes_ = 0;
};

// Loaded device code.
class Module {
 public:
  Module() = default;                  // none
  explicit Module(const void* image);  // a cubin, or a PTX text that ends with a NUL; not needed afterwards
  explicit operator bool() const noexcept { return handle_.get() != nullptr; }
  CUfunction function(const char* name) const;  // lives as long as the module

 private:
  Handle<CUmodule, destroy> handle_;
};

}  // namespace lora_mmap::cuda
