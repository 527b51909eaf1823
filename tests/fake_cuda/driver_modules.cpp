// The driver's functions for modules, kernels and launches. Kernels run on the CPU where the tests have them.
#include <array>
#include <cstring>

#include "cuda/kernels/table.h"
#include "entry_points.h"
#include "world.h"

#ifdef FAKE_CUDA_HAS_SIMT
#include "simt.h"
#endif

using namespace fake;

namespace {

constexpr size_t kMaxParams = 64;

// Bytes of a kernel's only parameter, as a module would know; 0 for a kernel there is not.
size_t params_nbytes(const std::string& kernel) {
#ifdef FAKE_CUDA_HAS_SIMT
  if (!simt_has_kernel(kernel.c_str())) return 0;
#endif
  if (kernel.rfind("lora_mmap_fuse", 0) == 0) return sizeof(FuseParams);
  if (kernel.rfind("lora_mmap_norms", 0) == 0 || kernel == "lora_mmap_gains") return sizeof(GainsParams);
  if (kernel.rfind("lora_mmap_step", 0) == 0) return sizeof(StepParams);
  if (kernel == "lora_mmap_copy") return sizeof(CopyParams);
  return 0;
}

// Why it did not run; empty when it did.
std::string run_kernel(const std::string& kernel, unsigned grid, unsigned block, unsigned shared_nbytes,
                       void* params) {
#ifdef FAKE_CUDA_HAS_SIMT
  void* args[] = {params};
  if (simt_launch(kernel.c_str(), grid, block, shared_nbytes, args) == 0) return {};
  return simt_error();
#else
  static_cast<void>(kernel), static_cast<void>(grid), static_cast<void>(block),
      static_cast<void>(shared_nbytes), static_cast<void>(params);
  return "this fake driver was built without kernels";
#endif
}

const std::string* find_function(CUfunction handle) {
  auto* const function = reinterpret_cast<std::string*>(handle);
  return world().functions.count(function) ? function : nullptr;
}

}  // namespace

FAKE_DRIVER_ENTRY CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  const Call call("cuModuleLoadData", Call::context | Call::unsafe_in_capture);
  if (call.refused()) return call.result();
  if (!image) return CUDA_ERROR_INVALID_VALUE;
  auto* const made = new std::string("module");
  world().modules.insert(made);
  *module = reinterpret_cast<CUmodule>(made);
  return CUDA_SUCCESS;
}

FAKE_DRIVER_ENTRY CUresult cuModuleUnload(CUmodule module) {
  const Call call("cuModuleUnload", Call::context | Call::destroys | Call::unsafe_in_capture);
  if (call.refused()) return call.result();
  auto* const found = reinterpret_cast<std::string*>(module);
  if (world().modules.erase(found) == 0) return kInvalidHandle;
  delete found;
  return call.done();
}

FAKE_DRIVER_ENTRY CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  const Call call("cuModuleGetFunction", Call::context);
  if (call.refused()) return call.result();
  if (world().modules.count(reinterpret_cast<std::string*>(module)) == 0) return kInvalidHandle;
  if (params_nbytes(name) == 0) return kNotFound;
  auto* const made = new std::string(name);
  world().functions.insert(made);
  *function = reinterpret_cast<CUfunction>(made);
  return CUDA_SUCCESS;
}

FAKE_DRIVER_ENTRY CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute, int) {
  const Call call("cuFuncSetAttribute", Call::context);
  if (call.refused()) return call.result();
  return find_function(function) ? CUDA_SUCCESS : kInvalidHandle;
}

FAKE_DRIVER_ENTRY CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction function, int,
                                                                       size_t) {
  const Call call("cuOccupancyMaxActiveBlocksPerMultiprocessor", Call::context);
  if (call.refused()) return call.result();
  if (!find_function(function)) return kInvalidHandle;
  *blocks = 2;
  return CUDA_SUCCESS;
}

FAKE_DRIVER_ENTRY CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y,
                                          unsigned grid_z, unsigned block_x, unsigned block_y,
                                          unsigned block_z, unsigned shared_nbytes, CUstream stream,
                                          void** params, void** extra) {
  const Call call("cuLaunchKernel", Call::context);
  if (call.refused()) return call.result();
  const std::string* const name = find_function(function);
  Stream* const launching = find_stream(*current_context(), stream);
  if (!name || !launching) return kInvalidHandle;
  if (grid_x == 0 || grid_y != 1 || grid_z != 1 || block_x == 0 || block_y != 1 || block_z != 1 || extra)
    return CUDA_ERROR_INVALID_VALUE;
  ++world().launches;
  std::array<std::byte, kMaxParams> copy{};
  std::memcpy(copy.data(), params[0], params_nbytes(*name));
  enqueue(*launching, {*name,
                       [=, kernel = *name]() mutable {
                         const std::string why =
                             run_kernel(kernel, grid_x, block_x, shared_nbytes, copy.data());
                         if (!why.empty()) violation(kernel + " did not run: " + why);
                       },
                       {},
                       {},
                       {}});
  return CUDA_SUCCESS;
}
