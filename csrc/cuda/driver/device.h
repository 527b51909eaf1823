// One CUDA device as this library uses it: torch's primary context, our kernels, one copy stream, one ring.
#pragma once

#include <memory>
#include <string>

#include "cuda/driver/api.h"
#include "cuda/driver/handles.h"

namespace lora_mmap::stream {
class Ring;
}

namespace lora_mmap::cuda {

// What is true of a device whatever happens to it; asking needs no context.
struct DeviceFacts {
  std::string name;
  int major = 0;  // compute capability
  int minor = 0;
  int multiprocessors = 0;
  int shared_nbytes_per_block = 0;  // with opt-in
  size_t memory_nbytes = 0;
};

// Makes `context` current on this thread for its lifetime; what was current before comes back.
class CurrentContext {
 public:
  explicit CurrentContext(CUcontext context);
  ~CurrentContext();
  CurrentContext(const CurrentContext&) = delete;
  CurrentContext& operator=(const CurrentContext&) = delete;
};

// Lives from its first use to the end of the process. Safe to share between threads.
class Device {
 public:
  // The device that torch calls cuda:`ordinal`. Throws Error(Fault::cuda): no driver, no such device, its
  // primary context is not active (nobody has used the device in this process: we never create one), or this
  // process was forked from one that had used CUDA.
  static Device& at(int ordinal);

  int ordinal() const;
  const DeviceFacts& facts() const;

  // Makes torch's primary context current on this thread.
  [[nodiscard]] CurrentContext enter();

  // Throws Error(Fault::cuda) while `stream` is being captured into a graph. Needs the context.
  void refuse_capture(CUstream stream, const char* function);

  // A kernel of ours, loaded with its module at the first call. Throws Error(Fault::cuda) where no image fits
  // or the driver refuses it, naming the device and the archs on board. Needs the context.
  CUfunction kernel(const char* name);

  // Blocks of `threads` threads and `shared_nbytes` of dynamic shared memory that fill the device. Allows the
  // kernel that much shared memory. Needs the context.
  unsigned resident_blocks(CUfunction kernel, unsigned threads, unsigned shared_nbytes);

  // Non-blocking, made at the first call. Needs the context.
  CUstream copy_stream();

  // The pinned staging slots, empty until somebody needs them. Needs the context to be used.
  stream::Ring& ring();

  // Waits for what the copy stream still does, then frees the ring and the stream. Returns the pinned bytes
  // freed. Later use makes them anew.
  size_t clear();

 private:
  struct State;
  explicit Device(int ordinal);
  std::unique_ptr<State> state_;
};

// What the driver says about itself and its devices, for people; never throws and creates no context.
struct DriverReport {
  bool loaded = false;
  int version = 0;         // 1000 * major + 10 * minor
  std::string why;         // why there is none, or why it cannot be used; empty when all is well
  int devices = 0;
};
DriverReport driver_report();
DeviceFacts device_facts(int ordinal);  // throws Error(Fault::cuda)

}  // namespace lora_mmap::cuda
