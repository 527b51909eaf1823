// What only a GPU has: barriers, shared memory, loads past the caches, conversions. One small function per
// operation; the emulator of tests/fake_cuda/simt brings its own.
#pragma once

#if defined(LORA_MMAP_SIMT)
#include LORA_MMAP_SIMT
#else

#include "cuda/kernels/table.h"

#define LORA_MMAP_BOTH __device__ __forceinline__
#define LORA_MMAP_DEVICE __device__ __forceinline__
#define LORA_MMAP_HARDWARE_CONVERSIONS 1
#if defined(__CUDA_ARCH__)
#define LORA_MMAP_ARCH (__CUDA_ARCH__ / 10)
#else
#define LORA_MMAP_ARCH 0
#endif

namespace lora_mmap::cuda {

extern __shared__ __align__(16) u8 shared_bytes[];

LORA_MMAP_DEVICE u8* shared_memory() {
  return shared_bytes;
}

// threadIdx.x, read anew: what is computed from it here is not kept in registers from an earlier place.
LORA_MMAP_DEVICE i32 thread_index_again() {
  i32 index;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(index));
  return index;
}

LORA_MMAP_DEVICE void block_barrier() {
  __syncthreads();
}

struct alignas(8) Words2 {
  u32 x, y;
};
struct alignas(16) Words4 {
  u32 x, y, z, w;
};

// Of memory that nothing writes while the kernel runs.
LORA_MMAP_DEVICE u32 load_constant_4(u64 address) {
  u32 value;
  asm("ld.global.nc.u32 %0, [%1];" : "=r"(value) : "l"(address));
  return value;
}
LORA_MMAP_DEVICE Words2 load_constant_8(u64 address) {
  Words2 v;
  asm("ld.global.nc.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(address));
  return v;
}
LORA_MMAP_DEVICE Words4 load_constant_16(u64 address) {
  Words4 v;
  asm("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
      : "l"(address));
  return v;
}

// Brings the line of `address` to the L2 cache.
LORA_MMAP_DEVICE void prefetch_line(u64 address) {
  asm volatile("prefetch.global.L2 [%0];" : : "l"(address));
}

LORA_MMAP_DEVICE u32 shared_address(const void* shared) {
  return static_cast<u32>(__cvta_generic_to_shared(shared));
}

// Copies that arrive on their own, from sm_80 on. What this thread has begun is there for it after
// copies_wait(), and for the other threads after a barrier behind that.
LORA_MMAP_DEVICE void copy_begin_8(void* shared, u64 global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8;"
               :
               : "r"(shared_address(shared)), "l"(global)
               : "memory");
}
// The first `nbytes` come from memory, the others are zeros.
LORA_MMAP_DEVICE void copy_begin_16(void* shared, u64 global, u32 nbytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(shared_address(shared)), "l"(global), "r"(nbytes)
               : "memory");
}
LORA_MMAP_DEVICE void copies_end_group() {
  asm volatile("cp.async.commit_group;" : : : "memory");
}
// Waits for all groups but the last `kOpen`.
template <int kOpen>
LORA_MMAP_DEVICE void copies_wait() {
  asm volatile("cp.async.wait_group %0;" : : "n"(kOpen) : "memory");
}

// On memory that other blocks change meanwhile. The first returns what was there.
LORA_MMAP_DEVICE u32 atomic_add(u64 address, u32 value) {
  u32 before;
  asm volatile("atom.global.add.u32 %0, [%1], %2;" : "=r"(before) : "l"(address), "r"(value) : "memory");
  return before;
}
LORA_MMAP_DEVICE void atomic_or(u64 address, u32 bits) {
  asm volatile("red.global.or.b32 [%0], %1;" : : "l"(address), "r"(bits) : "memory");
}
LORA_MMAP_DEVICE void atomic_max(u64 address, u32 value) {
  asm volatile("red.global.max.u32 [%0], %1;" : : "l"(address), "r"(value) : "memory");
}

LORA_MMAP_DEVICE u32 bits_set(u32 word) {
  return static_cast<u32>(__popc(static_cast<i32>(word)));
}

LORA_MMAP_DEVICE float f16_to_float(u16 bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

// Two values, each rounded to nearest even, the first in the lower half. Subnormals are kept, a NaN stays
// one.
LORA_MMAP_DEVICE u32 round_pair_to_f16(float low, float high) {
#if LORA_MMAP_ARCH >= 80
  u32 pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  u32 pair;
  asm("{ .reg .b16 l, h; cvt.rn.f16.f32 l, %1; cvt.rn.f16.f32 h, %2; mov.b32 %0, {l, h}; }"
      : "=r"(pair)
      : "f"(low), "f"(high));
  return pair;
#endif
}
LORA_MMAP_DEVICE u32 round_pair_to_bf16(float low, float high) {
#if LORA_MMAP_ARCH >= 80
  u32 pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  const auto round = [](float value) {
    const u32 x = __float_as_uint(value);
    if ((x & 0x7FFFFFFFu) > 0x7F800000u) return 0x7FFFu;
    return (x + 0x7FFFu + ((x >> 16) & 1u)) >> 16;
  };
  return round(low) | round(high) << 16;
#endif
}

// What follows is done by a whole warp together.

// Four 8 x 8 matrices of 16-bit elements from shared memory, a row of each at the address that one lane
// gives: lanes 0 to 7 the rows of the first, and so on. Lane l gets of each the elements (l / 4, 2 * (l % 4))
// and the next; transposed, those of the transposed matrix.
LORA_MMAP_DEVICE void load_matrices(const void* shared, u32 (&m)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(shared_address(shared))
               : "memory");
}
LORA_MMAP_DEVICE void load_matrices_transposed(const void* shared, u32 (&m)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(shared_address(shared))
               : "memory");
}

// d += a * b of 16 x 16 and 16 x 8 elements with exact products and fp32 sums.
LORA_MMAP_DEVICE void multiply_matrices_f16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
#if LORA_MMAP_ARCH >= 80
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(b0));
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
}
// From sm_80 on.
LORA_MMAP_DEVICE void multiply_matrices_bf16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace lora_mmap::cuda

#endif  // LORA_MMAP_SIMT
