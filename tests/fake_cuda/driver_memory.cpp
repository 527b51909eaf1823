// The driver's functions for pinned memory and copies.
#include <cstdlib>
#include <cstring>

#include "entry_points.h"
#include "world.h"

using namespace fake;

namespace {

constexpr size_t kPage = 4096;
constexpr int kPoison = 0xDB;

const std::byte* bytes_at(CUdeviceptr address) {
  return reinterpret_cast<const std::byte*>(static_cast<uintptr_t>(address));
}

// Both ways: nothing is copied that is not where the driver would find it.
CUresult copy(const char* name, CUstream handle, const Range& host, const Range& device, bool to_device) {
  Stream* const stream = find_stream(*current_context(), handle);
  if (!stream) return kInvalidHandle;
  if (host.nbytes == 0) return CUDA_SUCCESS;
  const std::shared_ptr<DeviceMemory> memory = device_memory(device);
  if (!memory || memory->device != current_context()->device) {
    violation(std::string(name) + " outside of the device's memory");
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (!is_pinned(host)) {
    violation(std::string(name) + " with host memory that is not pinned");
    return CUDA_ERROR_INVALID_VALUE;
  }
  const Range& from = to_device ? host : device;
  auto* const to = const_cast<std::byte*>(to_device ? device.begin : host.begin);
  (to_device ? world().bytes_to_device : world().bytes_to_host) += host.nbytes;
  enqueue(*stream, {name,
                    [to, from] { std::memcpy(to, from.begin, from.nbytes); },
                    {},
                    {},
                    {use_of(host, name), use_of(device, name)}});
  return CUDA_SUCCESS;
}

}  // namespace

FAKE_DRIVER_ENTRY CUresult cuMemHostAlloc(void** address, size_t nbytes, unsigned flags) {
  const Call call("cuMemHostAlloc", Call::context | Call::unsafe_in_capture);
  if (call.refused()) return call.result();
  if (flags != CU_MEMHOSTALLOC_PORTABLE || nbytes == 0) return CUDA_ERROR_INVALID_VALUE;
  *address = std::aligned_alloc(kPage, (nbytes + kPage - 1) / kPage * kPage);
  if (!*address) return kOutOfMemory;
  world().pinned[static_cast<std::byte*>(*address)] = nbytes;
  return CUDA_SUCCESS;
}

FAKE_DRIVER_ENTRY CUresult cuMemFreeHost(void* address) {
  const Call call("cuMemFreeHost", Call::context | Call::destroys | Call::unsafe_in_capture);
  if (call.refused()) return call.result();
  const auto found = world().pinned.find(static_cast<std::byte*>(address));
  if (found == world().pinned.end()) return CUDA_ERROR_INVALID_VALUE;
  const Range range{found->first, found->second};
  const size_t before = world().violations.size();
  check_not_in_use(range, "pinned memory is freed");
  world().pinned.erase(found);
  if (world().violations.size() > before) return call.done();  // a late copy would crash
  std::memset(address, kPoison, range.nbytes);                 // for whoever comes by the same address
  std::free(address);
  return call.done();
}

FAKE_DRIVER_ENTRY CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t nbytes,
                                                CUstream stream) {
  const Call call("cuMemcpyHtoDAsync", Call::context);
  if (call.refused()) return call.result();
  return copy("a copy to the device", stream, {static_cast<const std::byte*>(from), nbytes},
              {bytes_at(to), nbytes}, true);
}

FAKE_DRIVER_ENTRY CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t nbytes, CUstream stream) {
  const Call call("cuMemcpyDtoHAsync", Call::context);
  if (call.refused()) return call.result();
  return copy("a copy to the host", stream, {static_cast<const std::byte*>(to), nbytes},
              {bytes_at(from), nbytes}, false);
}

FAKE_DRIVER_ENTRY CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t nbytes,
                                           CUstream handle) {
  const Call call("cuMemsetD8Async", Call::context);
  if (call.refused()) return call.result();
  Stream* const stream = find_stream(*current_context(), handle);
  if (!stream) return kInvalidHandle;
  const Range range{bytes_at(to), nbytes};
  const std::shared_ptr<DeviceMemory> memory = device_memory(range);
  if (!memory || memory->device != current_context()->device) {
    violation("memory outside of the device's is filled");
    return CUDA_ERROR_INVALID_VALUE;
  }
  const std::string name = "a fill";
  enqueue(*stream, {name,
                    [range, value] { std::memset(const_cast<std::byte*>(range.begin), value, range.nbytes); },
                    {},
                    {},
                    {use_of(range, name)}});
  return CUDA_SUCCESS;
}
