// ldmatrix and mma.sync: how 32 lanes hold a matrix between them (PTX ISA, "Matrix fragments for mma").
#include <cstring>

#include "device.h"

namespace lora_mmap::cuda {
namespace {

constexpr int kLanes = 32;

struct LoadOperand {
  const unsigned char* row;  // that this lane gives the address of
  u32* m;
};

template <bool kTransposed>
void load_operation(void* const* operands) {
  const auto at = [&](int lane) { return static_cast<LoadOperand*>(operands[lane]); };
  for (int lane = 0; lane < kLanes; ++lane)
    for (int matrix = 0; matrix < 4; ++matrix) {
      u16 pair[2];
      for (int i = 0; i < 2; ++i) {
        const int row = kTransposed ? lane % 4 * 2 + i : lane / 4;
        const int col = kTransposed ? lane / 4 : lane % 4 * 2 + i;
        std::memcpy(&pair[i], at(matrix * 8 + row)->row + col * 2, 2);
      }
      at(lane)->m[matrix] = pair[0] | static_cast<u32>(pair[1]) << 16;
    }
}

struct MultiplyOperand {
  float* d;
  const u32* a;
  u32 b[2];
};

template <bool kBF16>
double element(u32 word, int i) {
  const auto bits = static_cast<u16>(word >> (16 * i));
  return static_cast<double>(kBF16 ? lora_mmap::bf16_to_float(bits) : lora_mmap::f16_to_float(bits));
}

// The sum of kDepth products and d, rounded once. Hardware adds them in an order and with a precision of its
// own; below sm_80 the depth is 8.
template <bool kBF16, int kDepth>
void multiply_operation(void* const* operands) {
  const auto at = [&](int lane) { return static_cast<MultiplyOperand*>(operands[lane]); };
  for (int first = 0; first < 16; first += kDepth)
    for (int lane = 0; lane < kLanes; ++lane)
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8;
        const int col = lane % 4 * 2 + i % 2;
        double sum = static_cast<double>(at(lane)->d[i]);
        for (int k = first; k < first + kDepth; ++k) {
          const int pair = k % 8 / 2;
          const u32 a = at(row % 8 * 4 + pair)->a[row / 8 + k / 8 * 2];
          const u32 b = at(col * 4 + pair)->b[k / 8];
          sum += element<kBF16>(a, k % 2) * element<kBF16>(b, k % 2);
        }
        at(lane)->d[i] = static_cast<float>(sum);
      }
}

}  // namespace

void load_matrices_at(const void* shared, u32 (&m)[4], bool transposed, simt::Place place) {
  simt::Block& block = simt::Block::current();
  if (reinterpret_cast<u64>(shared) % 16 != 0)
    block.fail("a row of a matrix that is not aligned to 16 bytes");
  LoadOperand operand{static_cast<const unsigned char*>(shared), m};
  block.collective(place, transposed ? load_operation<true> : load_operation<false>, &operand);
}

void multiply_matrices(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, bool bf16, simt::Place place) {
  constexpr int kDepth = LORA_MMAP_ARCH >= 80 ? 16 : 8;
  MultiplyOperand operand{d, a, {b0, b1}};
  simt::Block::current().collective(
      place, bf16 ? multiply_operation<true, kDepth> : multiply_operation<false, kDepth>, &operand);
}

}  // namespace lora_mmap::cuda
