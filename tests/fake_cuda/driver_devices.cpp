// The driver's functions for itself, devices and contexts.
#include <dlfcn.h>

#include <cstdio>
#include <cstring>

#include "entry_points.h"
#include "world.h"

using namespace fake;

namespace {

struct Versioned {
  const char* name;
  int since;
};
constexpr Versioned kSecondVersions[] = {
    {"cuCtxPushCurrent", 4000}, {"cuCtxPopCurrent", 4000},   {"cuStreamDestroy", 4000},
    {"cuEventDestroy", 4000},   {"cuMemcpyHtoDAsync", 3020}, {"cuMemcpyDtoHAsync", 3020},
    {"cuDeviceTotalMem", 3020},
};

bool exists(CUdevice device) {
  return device >= 0 && device < world().n_devices;
}

}  // namespace

FAKE_DRIVER_ENTRY CUresult cuGetProcAddress_v2(const char* name, void** address, int version, uint64_t flags,
                                               int* found) {
  *address = nullptr;
  *found = 1;
  if (!world().proc_address || flags != CU_GET_PROC_ADDRESS_LEGACY_STREAM) return kNotFound;
  std::string symbol = name;
  for (const Versioned& second : kSecondVersions)
    if (symbol == second.name && version >= second.since) symbol += "_v2";
  Dl_info self;
  ::dladdr(reinterpret_cast<void*>(&cuGetProcAddress_v2), &self);
  void* const library = ::dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD);
  *address = ::dlsym(library, symbol.c_str());
  ::dlclose(library);
  *found = *address ? 0 : 1;
  return *address ? CUDA_SUCCESS : kNotFound;
}

// What an old program gets: nobody here should.
#define FAKE_FIRST_VERSION(name)                             \
  FAKE_DRIVER_ENTRY CUresult name() {                        \
    violation(std::string("the first version of ") + #name); \
    return kNotSupported;                                    \
  }
FAKE_FIRST_VERSION(cuCtxPushCurrent)
FAKE_FIRST_VERSION(cuCtxPopCurrent)
FAKE_FIRST_VERSION(cuStreamDestroy)
FAKE_FIRST_VERSION(cuEventDestroy)
FAKE_FIRST_VERSION(cuMemcpyHtoDAsync)
FAKE_FIRST_VERSION(cuMemcpyDtoHAsync)
FAKE_FIRST_VERSION(cuDeviceTotalMem)

FAKE_DRIVER_ENTRY CUresult cuInit(unsigned) {
  const Call call("cuInit", Call::nothing);
  if (call.refused()) return call.result();
  return world().n_devices > 0 ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

FAKE_DRIVER_ENTRY CUresult cuDriverGetVersion(int* version) {
  *version = world().version;
  return CUDA_SUCCESS;
}

FAKE_DRIVER_ENTRY CUresult cuGetErrorName(CUresult result, const char** name) {
  thread_local std::string text;
  text = "CUDA_ERROR_FAKE_" + std::to_string(result);
  if (result == CUresult(700)) text = "CUDA_ERROR_ILLEGAL_ADDRESS";
  if (result == kOutOfMemory) text = "CUDA_ERROR_OUT_OF_MEMORY";
  if (result == kInvalidContext) text = "CUDA_ERROR_INVALID_CONTEXT";
  if (result == kInvalidHandle) text = "CUDA_ERROR_INVALID_HANDLE";
  *name = text.c_str();
  return CUDA_SUCCESS;
}

FAKE_DRIVER_ENTRY CUresult cuGetErrorString(CUresult result, const char** text) {
  *text =
      result == CUresult(700) ? "an illegal memory access was encountered" : "a failure of the fake driver";
  return CUDA_SUCCESS;
}

FAKE_DRIVER_ENTRY CUresult cuDeviceGetCount(int* count) {
  const Call call("cuDeviceGetCount", Call::nothing);
  if (call.refused()) return call.result();
  *count = world().n_devices;
  return CUDA_SUCCESS;
}

FAKE_DRIVER_ENTRY CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  const Call call("cuDeviceGet", Call::nothing);
  if (call.refused()) return call.result();
  if (!exists(ordinal)) return CUDA_ERROR_INVALID_DEVICE;
  *device = ordinal;
  return CUDA_SUCCESS;
}

FAKE_DRIVER_ENTRY CUresult cuDeviceGetName(char* name, int nbytes, CUdevice device) {
  const Call call("cuDeviceGetName", Call::nothing);
  if (call.refused()) return call.result();
  if (!exists(device)) return CUDA_ERROR_INVALID_DEVICE;
  std::snprintf(name, static_cast<size_t>(nbytes), "%s",
                world().devices[static_cast<size_t>(device)].name.c_str());
  return CUDA_SUCCESS;
}

FAKE_DRIVER_ENTRY CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  const Call call("cuDeviceGetAttribute", Call::nothing);
  if (call.refused()) return call.result();
  if (!exists(device)) return CUDA_ERROR_INVALID_DEVICE;
  const Device& asked = world().devices[static_cast<size_t>(device)];
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
      *value = 4;
      return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
      *value = asked.major;
      return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
      *value = asked.minor;
      return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
      *value = 227 << 10;
      return CUDA_SUCCESS;
  }
  return CUDA_ERROR_INVALID_VALUE;
}

FAKE_DRIVER_ENTRY CUresult cuDeviceTotalMem_v2(size_t* nbytes, CUdevice device) {
  const Call call("cuDeviceTotalMem", Call::nothing);
  if (call.refused()) return call.result();
  if (!exists(device)) return CUDA_ERROR_INVALID_DEVICE;
  *nbytes = size_t{1} << 33;
  return CUDA_SUCCESS;
}

FAKE_DRIVER_ENTRY CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned* flags, int* active) {
  const Call call("cuDevicePrimaryCtxGetState", Call::nothing);
  if (call.refused()) return call.result();
  if (!exists(device)) return CUDA_ERROR_INVALID_DEVICE;
  *flags = 0;
  *active = world().devices[static_cast<size_t>(device)].active;
  return CUDA_SUCCESS;
}

FAKE_DRIVER_ENTRY CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  const Call call("cuDevicePrimaryCtxRetain", Call::nothing);
  if (call.refused()) return call.result();
  if (!exists(device)) return CUDA_ERROR_INVALID_DEVICE;
  Device& asked = world().devices[static_cast<size_t>(device)];
  if (!asked.active) violation("a context is made on cuda:" + std::to_string(device));
  asked.active = true;
  ++asked.context.retained;
  *context = reinterpret_cast<CUcontext>(&asked.context);
  return CUDA_SUCCESS;
}

FAKE_DRIVER_ENTRY CUresult cuCtxPushCurrent_v2(CUcontext context) {
  const Call call("cuCtxPushCurrent", Call::nothing);
  if (call.refused()) return call.result();
  if (!context) return kInvalidContext;
  context_stack().push_back(reinterpret_cast<Context*>(context));
  ++world().contexts_pushed;
  return CUDA_SUCCESS;
}

FAKE_DRIVER_ENTRY CUresult cuCtxPopCurrent_v2(CUcontext* context) {
  const Call call("cuCtxPopCurrent", Call::context | Call::destroys);
  if (call.refused()) return call.result();
  *context = reinterpret_cast<CUcontext>(context_stack().back());
  context_stack().pop_back();
  --world().contexts_pushed;
  return call.done();
}

FAKE_DRIVER_ENTRY CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) {
  const Call call("cuThreadExchangeStreamCaptureMode", Call::nothing);
  if (call.refused()) return call.result();
  std::swap(*mode, capture_mode());
  return CUDA_SUCCESS;
}
