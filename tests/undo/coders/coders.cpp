// Every coder of corrections on the same numbers: the same bytes, which bring the numbers back. Ends with 1
// where they differ, with 77 where this CPU has only one coder.
#include <cstdio>
#include <random>
#include <vector>

#include "undo/bit_steps.h"
#include "undo/corrections.h"
#include "undo/corrections_avx512.h"

namespace lora_mmap {
namespace {

constexpr DType dtype_of(uint16_t) {
  return DType::F16;
}
constexpr DType dtype_of(uint32_t) {
  return DType::F32;
}

// `count` steps, with those behind the last that a coder may read but has no use for.
template <class Number>
struct Row {
  int64_t count;
  std::vector<Number> steps;
  std::vector<uint64_t> nonzero;

  explicit Row(int64_t n) : count(n) {
    const int64_t blocks = (n + kCorrectionBlock - 1) / kCorrectionBlock;
    steps.resize(static_cast<size_t>(blocks * kCorrectionBlock));
    nonzero.resize(static_cast<size_t>(blocks * kCorrectionBlock / 64));
    for (size_t i = static_cast<size_t>(n); i < steps.size(); ++i) steps[i] = static_cast<Number>(~i);
  }

  void set(int64_t at, Number number) {
    const auto i = static_cast<size_t>(at);
    steps[i] = unfolded(number);
    const uint64_t bit = uint64_t{1} << (at % 64);
    nonzero[i / 64] = number ? nonzero[i / 64] | bit : nonzero[i / 64] & ~bit;
  }
};

template <class Number>
std::vector<uint8_t> coded(EncodeCorrections encode, const Row<Number>& row) {
  std::vector<uint8_t> out(most_coded_nbytes(row.count, sizeof(Number)));
  out.resize(encode(dtype_of(Number{}), row.steps.data(), row.nonzero.data(), row.count, out.data()));
  return out;
}

// From guesses of +0.
template <class Number>
bool brings_back(const std::vector<uint8_t>& bytes, const Row<Number>& row) {
  std::vector<Number> values(static_cast<size_t>(row.count), 0), wanted(values);
  apply_corrections<Number>(bytes.data(), bytes.size(), {values.data(), 1, row.count, row.count});
  for (int64_t i = 0; i < row.count; ++i) {
    const Number steps = row.steps[static_cast<size_t>(i)];
    wanted[static_cast<size_t>(i)] = apply_steps(Number{0}, steps);
  }
  return values == wanted;
}

template <class Number>
bool agree(const Row<Number>& row, const char* what, int64_t density, int width) {
  const std::vector<uint8_t> plain = coded(encode_corrections, row);
  const bool same = plain == coded(encode_corrections_avx512, row);
  if (same && brings_back(plain, row)) return true;
  std::printf("%s: %zu-byte numbers, %lld of them, density %lld, width %d\n", what, sizeof(Number),
              static_cast<long long>(row.count), static_cast<long long>(density), width);
  return false;
}

// One number in 256 / `density` is not zero; most of those take `width` bits at most, one in 16 any.
template <class Number>
bool agree_at(std::mt19937& random, int64_t count, int64_t density, int width) {
  constexpr int kBits = sizeof(Number) * 8;
  Row<Number> row(count);
  for (int64_t i = 0; i < count; ++i) {
    if (static_cast<int64_t>(random() % 256) >= density) continue;
    const int bits = random() % 16 ? width : 1 + static_cast<int>(random() % kBits);
    const auto number = static_cast<Number>(uint32_t{random()} >> (32 - bits));
    row.set(i, number ? number : Number{1});
  }
  return agree(row, "random", density, width);
}

// All of one size, at either end of what a width holds.
template <class Number>
bool agree_on_bounds(int64_t set, int width) {
  Row<Number> low(kCorrectionBlock), high(kCorrectionBlock), mixed(kCorrectionBlock);
  for (int64_t i = 0; i < set; ++i) {
    const int64_t at = kCorrectionBlock - 1 - i * kCorrectionBlock / set;
    low.set(at, static_cast<Number>(uint32_t{1} << (width - 1)));
    high.set(at, static_cast<Number>((uint64_t{1} << width) - 1));
    mixed.set(at, static_cast<Number>(i % 5 ? 1 : (uint64_t{1} << width) - 1));
  }
  return agree(low, "least", set, width) && agree(high, "largest", set, width) &&
         agree(mixed, "escaped", set, width);
}

template <class Number>
bool agree() {
  constexpr int kBits = sizeof(Number) * 8;
  std::mt19937 random(61);
  bool all = true;
  for (int width = 1; width <= kBits; ++width) {
    for (int64_t density = 0; density <= 256; density += density < 16 ? 1 : 16)
      for (int64_t count : {1, 31, 64, 255, 256, 257, 300, 1024 + 17})
        all = all && agree_at<Number>(random, count, density, width);
    for (int64_t set = 1; set <= kCorrectionBlock; ++set) all = all && agree_on_bounds<Number>(set, width);
  }
  return all;
}

}  // namespace
}  // namespace lora_mmap

int main() {
  const bool has_both = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("bmi2");
  if (!has_both) return 77;
  return lora_mmap::agree<uint16_t>() && lora_mmap::agree<uint32_t>() ? 0 : 1;
}
