// One CUDA device as this library uses it: torch's primary context, our kernels, one copy stream, one ring.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cuda/driver/handles.h"

namespace lora_mmap::stream {
class Ring;
}

namespace lora_mmap::cuda {

class PinnedBlocks;
class PinnedBuffers;

// What is true of a device whatever happens to it; asking needs no context.
struct DeviceFacts {
  std::string name;
  int major = 0;  // compute capability
  int minor = 0;
  int multiprocessors = 0;
  int shared_nbytes_per_block = 0;  // with opt-in
  size_t memory_nbytes = 0;
};

// Makes `context` current on this thread for its lifetime; what was current before comes back. Meanwhile the
// thread's capture mode is relaxed, so that nothing done here invalidates a capture that goes on elsewhere,
// and errors of the driver name `function` and cuda:`ordinal`.
class CurrentContext {
 public:
  CurrentContext(CUcontext context, int ordinal, const char* function);
  ~CurrentContext();
  CurrentContext(const CurrentContext&) = delete;
  CurrentContext& operator=(const CurrentContext&) = delete;

 private:
  Calling calling_;
  CUstreamCaptureMode outer_mode_ = CU_STREAM_CAPTURE_MODE_RELAXED;
};

// Lives from its first use to the end of the process, and so does what it owns: a static destructor would run
// when the driver may be gone. Safe to share between threads.
class Device {
 public:
  // The device that torch calls cuda:`ordinal`. Throws Error(Fault::cuda): no driver, no such device, its
  // primary context is not active (nobody has used the device in this process: we never create one), or this
  // process was forked from one that had used CUDA. `function` is for the error.
  static Device& at(int ordinal, const char* function);

  // Those that at() has given out in this process, by ordinal. Asks nothing of the driver.
  static std::vector<Device*> used();

  int ordinal() const;
  const DeviceFacts& facts() const;

  // Makes torch's primary context current on this thread. `function` names the caller in errors; it must
  // outlive what is returned.
  [[nodiscard]] CurrentContext enter(const char* function);

  // Throws Error(Fault::cuda) while `stream` is being captured into a graph. Needs the context.
  void refuse_capture(CUstream stream);

  // A kernel of ours, loaded with its module at the first call. Throws Error(Fault::cuda) where no image fits
  // or the driver refuses it, naming the device and the archs on board. Needs the context.
  CUfunction kernel(const char* name);

  // Loads the module that kernel() takes its kernels from, and throws as it does. Needs the context.
  void load_kernels();

  // Blocks of `threads` threads and `shared_nbytes` of dynamic shared memory that fill the device. Allows the
  // kernel that much shared memory. Needs the context.
  unsigned resident_blocks(CUfunction kernel, unsigned threads, unsigned shared_nbytes);

  // Non-blocking, made at the first call. Needs the context.
  CUstream copy_stream();

  // The pinned staging slots, empty until somebody needs them. Needs the context to be used.
  stream::Ring& ring();

  // For tables on their way there and flags on their way back. Needs the context to be used.
  PinnedBuffers& pinned_buffers();

  // Pinned memory that is kept.
  PinnedBlocks& pinned_blocks();

  // Waits for the copies in flight, then frees the pinned memory of the ring and of the small buffers.
  // Returns the bytes freed. Uploads that go on meanwhile pin what they need anew. Needs the context.
  size_t clear();

 private:
  struct State;
  explicit Device(std::unique_ptr<State> state);
  ~Device();  // never called
  std::unique_ptr<State> state_;
};

// Of a device that nobody needs to have used; creates no context. Throws Error(Fault::cuda): no driver, no
// such device.
DeviceFacts device_facts(int ordinal, const char* function);

// The image that the device's kernels come from: "sm_90" or "PTX compute_120". Empty where none fits;
// `why` then says so. Throws Error(Fault::cuda) as device_facts() does.
std::string image_name_for(const DeviceFacts& facts, std::string& why);

}  // namespace lora_mmap::cuda
