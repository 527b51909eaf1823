// The part of the CUDA driver's interface that this library uses, in its own words: builds need no toolkit.
// tests/cuda/test_api.py checks every line against the real cuda.h where there is one.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lora_mmap::cuda {

using CUdevice = int;
using CUdeviceptr = unsigned long long;
using CUcontext = struct CUctx_st*;
using CUstream = struct CUstream_st*;  // null is the legacy default stream
using CUevent = struct CUevent_st*;
using CUmodule = struct CUmod_st*;
using CUfunction = struct CUfunc_st*;

enum CUresult : int {
  CUDA_SUCCESS = 0,
  CUDA_ERROR_INVALID_VALUE = 1,
  CUDA_ERROR_NOT_INITIALIZED = 3,
  CUDA_ERROR_STUB_LIBRARY = 34,
  CUDA_ERROR_NO_DEVICE = 100,
  CUDA_ERROR_INVALID_DEVICE = 101,
  CUDA_ERROR_NOT_READY = 600,
  CUDA_ERROR_STREAM_CAPTURE_IMPLICIT = 906,
};

enum CUdevice_attribute : int {
  CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT = 16,
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75,
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76,
  CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97,
};

enum CUfunction_attribute : int { CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8 };
enum CUstreamCaptureStatus : int { CU_STREAM_CAPTURE_STATUS_NONE = 0 };
enum CUstreamCaptureMode : int { CU_STREAM_CAPTURE_MODE_RELAXED = 2 };

constexpr unsigned CU_STREAM_NON_BLOCKING = 1;
constexpr unsigned CU_EVENT_DEFAULT = 0;
constexpr unsigned CU_EVENT_DISABLE_TIMING = 2;
constexpr unsigned CU_MEMHOSTALLOC_PORTABLE = 1;
constexpr uint64_t CU_GET_PROC_ADDRESS_LEGACY_STREAM = 1;

// FUNCTION(name, symbol for dlsym, version that cuGetProcAddress is asked for, parameters): the version is
// the driver's that brought the signature given here, so a later one of the same name is not taken by
// mistake.
#define LORA_MMAP_CUDA_FUNCTIONS(FUNCTION)                                                                   \
  FUNCTION(cuInit, cuInit, 2000, (unsigned flags))                                                           \
  FUNCTION(cuDriverGetVersion, cuDriverGetVersion, 2020, (int* version))                                     \
  FUNCTION(cuGetErrorName, cuGetErrorName, 6000, (CUresult result, const char** name))                       \
  FUNCTION(cuGetErrorString, cuGetErrorString, 6000, (CUresult result, const char** text))                   \
  FUNCTION(cuDeviceGetCount, cuDeviceGetCount, 2000, (int* count))                                           \
  FUNCTION(cuDeviceGet, cuDeviceGet, 2000, (CUdevice * device, int ordinal))                                 \
  FUNCTION(cuDeviceGetName, cuDeviceGetName, 2000, (char* name, int nbytes, CUdevice device))                \
  FUNCTION(cuDeviceGetAttribute, cuDeviceGetAttribute, 2000,                                                 \
           (int* value, CUdevice_attribute attribute, CUdevice device))                                      \
  FUNCTION(cuDeviceTotalMem, cuDeviceTotalMem_v2, 3020, (size_t* nbytes, CUdevice device))                   \
  FUNCTION(cuDevicePrimaryCtxGetState, cuDevicePrimaryCtxGetState, 7000,                                     \
           (CUdevice device, unsigned* flags, int* active))                                                  \
  FUNCTION(cuDevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, 7000, (CUcontext * context, CUdevice device)) \
  FUNCTION(cuCtxPushCurrent, cuCtxPushCurrent_v2, 4000, (CUcontext context))                                 \
  FUNCTION(cuCtxPopCurrent, cuCtxPopCurrent_v2, 4000, (CUcontext * context))                                 \
  FUNCTION(cuStreamCreate, cuStreamCreate, 2000, (CUstream * stream, unsigned flags))                        \
  FUNCTION(cuStreamDestroy, cuStreamDestroy_v2, 4000, (CUstream stream))                                     \
  FUNCTION(cuStreamWaitEvent, cuStreamWaitEvent, 3020, (CUstream stream, CUevent event, unsigned flags))     \
  FUNCTION(cuStreamSynchronize, cuStreamSynchronize, 2000, (CUstream stream))                                \
  FUNCTION(cuStreamIsCapturing, cuStreamIsCapturing, 10000,                                                  \
           (CUstream stream, CUstreamCaptureStatus * status))                                                \
  FUNCTION(cuThreadExchangeStreamCaptureMode, cuThreadExchangeStreamCaptureMode, 10010,                      \
           (CUstreamCaptureMode * mode))                                                                     \
  FUNCTION(cuEventCreate, cuEventCreate, 2000, (CUevent * event, unsigned flags))                            \
  FUNCTION(cuEventDestroy, cuEventDestroy_v2, 4000, (CUevent event))                                         \
  FUNCTION(cuEventRecord, cuEventRecord, 2000, (CUevent event, CUstream stream))                             \
  FUNCTION(cuEventQuery, cuEventQuery, 2000, (CUevent event))                                                \
  FUNCTION(cuEventSynchronize, cuEventSynchronize, 2000, (CUevent event))                                    \
  FUNCTION(cuEventElapsedTime, cuEventElapsedTime, 2000, (float* milliseconds, CUevent begin, CUevent end))  \
  FUNCTION(cuMemHostAlloc, cuMemHostAlloc, 2020, (void** address, size_t nbytes, unsigned flags))            \
  FUNCTION(cuMemFreeHost, cuMemFreeHost, 2000, (void* address))                                              \
  FUNCTION(cuMemcpyHtoDAsync, cuMemcpyHtoDAsync_v2, 3020,                                                    \
           (CUdeviceptr to, const void* from, size_t nbytes, CUstream stream))                               \
  FUNCTION(cuMemcpyDtoHAsync, cuMemcpyDtoHAsync_v2, 3020,                                                    \
           (void* to, CUdeviceptr from, size_t nbytes, CUstream stream))                                     \
  FUNCTION(cuMemsetD8Async, cuMemsetD8Async, 3020,                                                           \
           (CUdeviceptr to, unsigned char value, size_t nbytes, CUstream stream))                            \
  FUNCTION(cuModuleLoadData, cuModuleLoadData, 2000, (CUmodule * module, const void* image))                 \
  FUNCTION(cuModuleUnload, cuModuleUnload, 2000, (CUmodule module))                                          \
  FUNCTION(cuModuleGetFunction, cuModuleGetFunction, 2000,                                                   \
           (CUfunction * function, CUmodule module, const char* name))                                       \
  FUNCTION(cuFuncSetAttribute, cuFuncSetAttribute, 9000,                                                     \
           (CUfunction function, CUfunction_attribute attribute, int value))                                 \
  FUNCTION(cuOccupancyMaxActiveBlocksPerMultiprocessor, cuOccupancyMaxActiveBlocksPerMultiprocessor, 6050,   \
           (int* blocks, CUfunction function, int threads, size_t shared_nbytes))                            \
  FUNCTION(cuLaunchKernel, cuLaunchKernel, 4000,                                                             \
           (CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,        \
            unsigned block_y, unsigned block_z, unsigned shared_nbytes, CUstream stream, void** params,      \
            void** extra))

}  // namespace lora_mmap::cuda
