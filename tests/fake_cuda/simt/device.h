// Stands in for csrc/cuda/kernels/device.cuh: the same names, on fibers. Compiled with LORA_MMAP_ARCH as
// 75, 90...
#pragma once

#include <cmath>
#include <cstring>

#include "base/half.h"
#include "block.h"
#include "cuda/kernels/table.h"

#define __global__
#define __device__
#define __launch_bounds__(...)
#define LORA_MMAP_BOTH inline
#define LORA_MMAP_DEVICE inline
#define threadIdx (lora_mmap::simt::Index{lora_mmap::simt::here.thread})
#define blockIdx (lora_mmap::simt::Index{lora_mmap::simt::here.block})
#define gridDim (lora_mmap::simt::Index{lora_mmap::simt::here.grid})

namespace lora_mmap::simt {
struct Index {
  unsigned x;
};
}  // namespace lora_mmap::simt

namespace lora_mmap::cuda {

inline u8* shared_memory() {
  return simt::Block::current().shared();
}

inline i32 thread_index_again() {
  return static_cast<i32>(simt::here.thread);
}

inline void block_barrier(simt::Place place = {__builtin_FILE(), __builtin_LINE()}) {
  simt::Block::current().barrier(place);
}

struct alignas(8) Words2 {
  u32 x, y;
};
struct alignas(16) Words4 {
  u32 x, y, z, w;
};

// As the hardware does, refuses what is not aligned to its size.
template <class T>
const T& aligned_at(u64 address) {
  if (address % sizeof(T) != 0) simt::Block::current().fail("a misaligned access");
  return *reinterpret_cast<const T*>(address);
}
inline u32 load_constant_4(u64 address) {
  return aligned_at<u32>(address);
}
inline Words2 load_constant_8(u64 address) {
  return aligned_at<Words2>(address);
}
inline Words4 load_constant_16(u64 address) {
  return aligned_at<Words4>(address);
}

// A line that nobody may read would be a mistake in an address: read a byte of it.
inline void prefetch_line(u64 address) {
  static_cast<void>(*reinterpret_cast<const volatile u8*>(address));
}

inline void begin_copy(void* shared, u64 global, size_t nbytes, size_t zeros) {
  const size_t size = nbytes + zeros;
  if (LORA_MMAP_ARCH < 80) simt::Block::current().fail("copies that arrive on their own begin with sm_80");
  if (reinterpret_cast<u64>(shared) % size != 0 || global % size != 0)
    simt::Block::current().fail("a misaligned copy");
  simt::Block::current().begin_copy({shared, reinterpret_cast<const void*>(global), nbytes, zeros, 0});
}
inline void copy_begin_8(void* shared, u64 global) {
  begin_copy(shared, global, 8, 0);
}
inline void copy_begin_16(void* shared, u64 global, u32 nbytes) {
  begin_copy(shared, global, nbytes, 16 - nbytes);
}
inline void copies_end_group() {
  simt::Block::current().end_copies();
}
template <int kOpen>
void copies_wait() {
  simt::Block::current().wait_copies(kOpen);
}

// A lane's part in an operation of its warp. The operations themselves are in tensor_core.cpp.
void load_matrices_at(const void* shared, u32 (&m)[4], bool transposed, simt::Place place);
void multiply_matrices(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, bool bf16, simt::Place place);

inline void load_matrices(const void* shared, u32 (&m)[4],
                          simt::Place place = {__builtin_FILE(), __builtin_LINE()}) {
  load_matrices_at(shared, m, false, place);
}
inline void load_matrices_transposed(const void* shared, u32 (&m)[4],
                                     simt::Place place = {__builtin_FILE(), __builtin_LINE()}) {
  load_matrices_at(shared, m, true, place);
}
inline void multiply_matrices_f16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1,
                                  simt::Place place = {__builtin_FILE(), __builtin_LINE()}) {
  multiply_matrices(d, a, b0, b1, false, place);
}
inline void multiply_matrices_bf16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1,
                                   simt::Place place = {__builtin_FILE(), __builtin_LINE()}) {
  if (LORA_MMAP_ARCH < 80) simt::Block::current().fail("bf16 matrices begin with sm_80");
  multiply_matrices(d, a, b0, b1, true, place);
}

inline u32 atomic_add(u64 address, u32 value) {
  return __atomic_fetch_add(reinterpret_cast<u32*>(address), value, __ATOMIC_RELAXED);
}
inline void atomic_or(u64 address, u32 bits) {
  __atomic_fetch_or(reinterpret_cast<u32*>(address), bits, __ATOMIC_RELAXED);
}
inline void atomic_max(u64 address, u32 value) {
  u32* const at = reinterpret_cast<u32*>(address);
  u32 seen = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (seen < value &&
         !__atomic_compare_exchange_n(at, &seen, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}
inline u32 bits_set(u32 word) {
  return static_cast<u32>(__builtin_popcount(word));
}

inline float f16_to_float(u16 bits) {
  return lora_mmap::f16_to_float(bits);
}
inline u32 round_pair_to_f16(float low, float high) {
  return float_to_f16(low) | static_cast<u32>(float_to_f16(high)) << 16;
}
inline u32 round_pair_to_bf16(float low, float high) {
  return float_to_bf16(low) | static_cast<u32>(float_to_bf16(high)) << 16;
}

}  // namespace lora_mmap::cuda
