// Bytes of files or of host memory to a device, through the pinned ring: read, copied and waited for in
// order.
#pragma once

#include <cstdint>
#include <span>

#include "cuda/driver/device.h"
#include "safetensors/file.h"

namespace lora_mmap::stream {

struct UploadRequest {
  const safetensors::File* file = nullptr;          // null: the bytes are at `source`
  const safetensors::Contents* contents = nullptr;  // names what cannot be read, if given: the Header
  uint64_t offset = 0;                              // in the file
  const void* source = nullptr;
  uint64_t nbytes = 0;
  cuda::CUdeviceptr destination = 0;  // requests must not overlap there
};

// Device addresses that follow each other with gaps of less than this many bytes go in one copy (what is in
// the gap is overwritten with anything).
constexpr uint64_t kCopyGap = 16;

// Reads every request on up to `threads` threads into slots of the device's ring and copies each filled slot
// with one asynchronous copy on the device's copy stream: a run of requests whose destinations follow each
// other is one stretch of device memory, cut at the slots' size only. The copies begin after `after` (an
// event recorded once the memory at the destinations was free to be written; null: at once), and `consumer`
// is made to wait for them, so work submitted to it from now on finds the bytes there. Returns when
// everything has been read and every copy has been issued; blocks on no copy but those whose slots it needs
// again. Cold files are read ahead of what is needed.
//
// On failure (File::read_exact's errors, Error(Fault::cuda)) waits until no copy is in flight, then rethrows:
// the destinations are then partly written and may be freed. Throws Error(Fault::argument), before anything
// is done, for a request without a source or a destination, and Error(Fault::cuda) while `consumer` is
// captured. Needs the device's context, and enters it on the other threads.
void upload(cuda::Device& device, std::span<const UploadRequest> requests, cuda::CUevent after,
            cuda::CUstream consumer, int threads);

}  // namespace lora_mmap::stream
