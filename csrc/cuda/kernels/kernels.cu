// Every kernel of the library. Device code only: it includes no header of the host's or of a standard
// library, so NVRTC and nvcc (and the emulator of the tests) compile the same text. Include path: csrc.
#include "cuda/kernels/copy.cuh"
#include "cuda/kernels/fuse_any.cuh"
#include "cuda/kernels/fuse_f64.cuh"
#include "cuda/kernels/fuse_fast.cuh"
#include "cuda/kernels/fuse_ordered.cuh"
#include "cuda/kernels/fuse_terms.cuh"
#include "cuda/kernels/gains.cuh"
#include "cuda/kernels/probe_ffma.cuh"
#include "cuda/kernels/step.cuh"

using namespace lora_mmap::cuda;

extern "C" __global__ void __launch_bounds__(kThreads, 2) lora_mmap_fuse_ordered_f16(FuseParams params) {
  fuse_ordered<F16>(params);
}

extern "C" __global__ void __launch_bounds__(kThreads, 2) lora_mmap_fuse_ordered_bf16(FuseParams params) {
  fuse_ordered<BF16>(params);
}

extern "C" __global__ void __launch_bounds__(kThreads, 2) lora_mmap_fuse_ordered_f32(FuseParams params) {
  fuse_ordered<F32>(params);
}

extern "C" __global__ void __launch_bounds__(kThreads, 1) lora_mmap_fuse_any(FuseParams params) {
  fuse_any(params);
}

extern "C" __global__ void __launch_bounds__(kThreads) lora_mmap_fuse_f64(FuseParams params) {
  fuse_f64(params);
}

extern "C" __global__ void __launch_bounds__(kThreads, 2) lora_mmap_fuse_fast_f16(FuseParams params) {
  fuse_fast<F16>(params);
}

extern "C" __global__ void __launch_bounds__(kThreads, 2) lora_mmap_fuse_fast_bf16(FuseParams params) {
  fuse_fast<BF16>(params);
}

extern "C" __global__ void __launch_bounds__(kThreads, 2) lora_mmap_fuse_fast_f32(FuseParams params) {
  fuse_fast<F32>(params);
}

extern "C" __global__ void __launch_bounds__(kThreads, 1) lora_mmap_fuse_terms(FuseParams params) {
  fuse_terms<float>(params);
}

extern "C" __global__ void __launch_bounds__(kThreads, 1) lora_mmap_fuse_terms_f64(FuseParams params) {
  fuse_terms<double>(params);
}

extern "C" __global__ void __launch_bounds__(kThreads, 1) lora_mmap_norms(GainsParams params) {
  sum_norms<float>(params);
}

extern "C" __global__ void __launch_bounds__(kThreads, 1) lora_mmap_norms_f64(GainsParams params) {
  sum_norms<double>(params);
}

extern "C" __global__ void __launch_bounds__(kThreads) lora_mmap_gains(GainsParams params) {
  make_gains(params);
}

extern "C" __global__ void __launch_bounds__(kThreads, 2) lora_mmap_step_pairs(StepParams params) {
  step_tiles<Terms::pairs, float>(params);
}

extern "C" __global__ void __launch_bounds__(kThreads, 1) lora_mmap_step(StepParams params) {
  step_tiles<Terms::any, float>(params);
}

extern "C" __global__ void __launch_bounds__(kThreads, 1) lora_mmap_step_f64(StepParams params) {
  step_tiles<Terms::any, double>(params);
}

extern "C" __global__ void __launch_bounds__(kThreads) lora_mmap_copy(CopyParams params) {
  copy_rects(params);
}

extern "C" __global__ void __launch_bounds__(kThreads) lora_mmap_probe_ffma(ProbeParams params) {
  probe_ffma(params);
}
