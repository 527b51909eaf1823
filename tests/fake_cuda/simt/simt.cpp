#include "simt.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <numeric>
#include <string_view>

#include "base/float_env.h"
#include "block.h"
#include "cuda/kernels/kernels.cu"

namespace lora_mmap::simt {
namespace {

template <auto kKernel, class Params>
void call(void** args) {
  kKernel(*static_cast<Params*>(args[0]));
}

struct Entry {
  std::string_view name;
  Block::Kernel kernel;
};

#define LORA_MMAP_ENTRY(name, Params) \
  Entry {                             \
    #name, call<name, Params>         \
  }
const std::array kKernels{
    LORA_MMAP_ENTRY(lora_mmap_fuse_ordered_f16, FuseParams),
    LORA_MMAP_ENTRY(lora_mmap_fuse_ordered_bf16, FuseParams),
    LORA_MMAP_ENTRY(lora_mmap_fuse_ordered_f32, FuseParams),
    LORA_MMAP_ENTRY(lora_mmap_fuse_any, FuseParams),
    LORA_MMAP_ENTRY(lora_mmap_fuse_f64, FuseParams),
    LORA_MMAP_ENTRY(lora_mmap_fuse_fast_f16, FuseParams),
    LORA_MMAP_ENTRY(lora_mmap_fuse_fast_bf16, FuseParams),
    LORA_MMAP_ENTRY(lora_mmap_fuse_fast_f32, FuseParams),
    LORA_MMAP_ENTRY(lora_mmap_fuse_terms, FuseParams),
    LORA_MMAP_ENTRY(lora_mmap_fuse_terms_f64, FuseParams),
    LORA_MMAP_ENTRY(lora_mmap_norms, GainsParams),
    LORA_MMAP_ENTRY(lora_mmap_norms_f64, GainsParams),
    LORA_MMAP_ENTRY(lora_mmap_gains, GainsParams),
    LORA_MMAP_ENTRY(lora_mmap_step_pairs, StepParams),
    LORA_MMAP_ENTRY(lora_mmap_step, StepParams),
    LORA_MMAP_ENTRY(lora_mmap_step_f64, StepParams),
    LORA_MMAP_ENTRY(lora_mmap_copy, CopyParams),
    LORA_MMAP_ENTRY(lora_mmap_probe_ffma, ProbeParams),
};

std::atomic<int> order_mode{0};
std::atomic<unsigned> order_seed{0};
thread_local std::string error;

Block::Kernel kernel_named(std::string_view name) {
  const auto found =
      std::find_if(kKernels.begin(), kKernels.end(), [&](const Entry& e) { return e.name == name; });
  return found == kKernels.end() ? nullptr : found->kernel;
}

std::string launch(const char* name, unsigned grid, unsigned threads, unsigned shared_nbytes, void** args) {
  const Block::Kernel kernel = kernel_named(name);
  if (!kernel) return std::string("no kernel is named ") + name;
  if (threads == 0 || threads > 1024 || threads % 32 != 0 || grid == 0)
    return "blocks of " + std::to_string(threads) + " threads, " + std::to_string(grid) + " of them";
  if (shared_nbytes > (LORA_MMAP_ARCH < 80 ? 64U : 99U) << 10)
    return std::to_string(shared_nbytes) + " bytes of shared memory are more than a block can have";
  const FloatEnv env;
  const auto order = static_cast<Order>(order_mode.load());
  std::mt19937 random(order_seed.load());
  std::vector<unsigned> blocks(grid);
  std::iota(blocks.begin(), blocks.end(), 0U);
  if (order == Order::reverse) std::reverse(blocks.begin(), blocks.end());
  if (order == Order::random) std::shuffle(blocks.begin(), blocks.end(), random);
  thread_local const std::unique_ptr<Block> block = std::make_unique<Block>();
  for (const unsigned index : blocks) {
    std::string what = block->run(kernel, args, grid, index, threads, shared_nbytes, order, random);
    if (!what.empty()) return what;
  }
  return {};
}

}  // namespace
}  // namespace lora_mmap::simt

int simt_launch(const char* kernel, unsigned grid_x, unsigned block_x, unsigned shared_nbytes, void** args) {
  using namespace lora_mmap::simt;
  try {
    error = launch(kernel, grid_x, block_x, shared_nbytes, args);
  } catch (const std::exception& e) {
    error = e.what();
  }
  return error.empty() ? 0 : 1;
}

int simt_has_kernel(const char* kernel) {
  return lora_mmap::simt::kernel_named(kernel) ? 1 : 0;
}

void simt_order(int mode, unsigned seed) {
  lora_mmap::simt::order_mode = mode;
  lora_mmap::simt::order_seed = seed;
}

const char* simt_error() {
  return lora_mmap::simt::error.c_str();
}

int simt_arch() {
  return LORA_MMAP_ARCH;
}
