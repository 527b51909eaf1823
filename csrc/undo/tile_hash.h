// The hash by which a tile is known again.
//
// The bytes are little-endian words of 32 bits, the last filled up with zeros; word i belongs to lane i % 64.
// A lane starts at kHashSeed * (2 * lane + 1) and takes a word by h = (h ^ word) * kHashFactor; h ^= h >> 15.
// Pairs of lanes (the even one below) then go into one value of 64 bits, which starts at the number of bytes:
// f = (f ^ pair) * kFoldFactor; f ^= f >> 29. Every step is a bijection of the word and of the state, so
// that a change within one aligned element of up to 8 bytes changes the hash for certain.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lora_mmap {

constexpr int kHashLanes = 64;
constexpr uint32_t kHashSeed = 0x9E3779B1;
constexpr uint32_t kHashFactor = 0x85EBCA77;
constexpr uint64_t kFoldFactor = 0x9FB21C651E98DF25;
constexpr size_t kHashStepNbytes = kHashLanes * sizeof(uint32_t);

void start_lanes(uint32_t* lanes);

// Rows of whole steps, each `stride_nbytes` from the next.
struct HashedRows {
  const std::byte* data;
  size_t steps;  // of a row: one word for every lane each
  int64_t rows = 1;
  int64_t stride_nbytes = 0;
};
void hash_steps(uint32_t* lanes, const HashedRows& from);

// A faster hash_steps.
using HashSteps = void (*)(uint32_t* lanes, const HashedRows& from);

uint64_t hash_of(const void* data, size_t nbytes, HashSteps take = hash_steps);

// The same, of bytes that come piece by piece in whole steps.
class HashInPieces {
 public:
  HashInPieces() { start_lanes(lanes_); }
  void take(const std::byte* data, size_t nbytes, HashSteps take);
  uint64_t value() const;

 private:
  alignas(64) uint32_t lanes_[kHashLanes];
  size_t nbytes_ = 0;
};

// The same of rows one after the other, each whole steps long and `row_stride_nbytes` from the next.
uint64_t hash_of_rows(const std::byte* data, int64_t rows, size_t row_nbytes, int64_t row_stride_nbytes,
                      HashSteps take = hash_steps);

// The hash of the hashes of pieces of 1 MiB, on up to `threads` threads.
uint64_t hash_bytes(const void* data, size_t nbytes, int threads);

}  // namespace lora_mmap
