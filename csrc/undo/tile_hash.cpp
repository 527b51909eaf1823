#include "undo/tile_hash.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/thread_pool.h"

namespace lora_mmap {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr size_t kPieceNbytes = size_t{1} << 20;

uint64_t fold(const uint32_t* lanes, size_t nbytes) {
  uint64_t folded = nbytes;
  for (int lane = 0; lane < kHashLanes; lane += 2) {
    folded = (folded ^ (uint64_t{lanes[lane]} | uint64_t{lanes[lane + 1]} << 32)) * kFoldFactor;
    folded ^= folded >> 29;
  }
  return folded;
}

}  // namespace

void start_lanes(uint32_t* lanes) {
  for (uint32_t lane = 0; lane < kHashLanes; ++lane) lanes[lane] = kHashSeed * (2 * lane + 1);
}

void hash_steps(uint32_t* lanes, const HashedRows& from) {
  for (int64_t m = 0; m < from.rows; ++m) {
    const std::byte* data = from.data + m * from.stride_nbytes;
    for (size_t step = 0; step < from.steps; ++step, data += kHashStepNbytes) {
      uint32_t words[kHashLanes];
      std::memcpy(words, data, sizeof(words));
      for (int lane = 0; lane < kHashLanes; ++lane) {
        const uint32_t mixed = (lanes[lane] ^ words[lane]) * kHashFactor;
        lanes[lane] = mixed ^ (mixed >> 15);
      }
    }
  }
}

// The last step, where it is incomplete, changes only the lanes that have a word there.
uint64_t hash_of(const void* data, size_t nbytes, HashSteps take) {
  alignas(64) uint32_t lanes[kHashLanes];
  start_lanes(lanes);
  const size_t steps = nbytes / kHashStepNbytes;
  const auto* bytes = static_cast<const std::byte*>(data);
  take(lanes, {bytes, steps});
  if (const size_t rest = nbytes % kHashStepNbytes) {
    std::byte last[kHashStepNbytes] = {};
    std::memcpy(last, bytes + steps * kHashStepNbytes, rest);
    alignas(64) uint32_t all[kHashLanes];
    std::copy_n(lanes, kHashLanes, all);
    take(all, {last, 1});
    std::copy_n(all, (rest + 3) / 4, lanes);
  }
  return fold(lanes, nbytes);
}

void HashInPieces::take(const std::byte* data, size_t nbytes, HashSteps take) {
  take(lanes_, {data, nbytes / kHashStepNbytes});
  nbytes_ += nbytes;
}

uint64_t HashInPieces::value() const {
  return fold(lanes_, nbytes_);
}

uint64_t hash_of_rows(const std::byte* data, int64_t rows, size_t row_nbytes, int64_t row_stride_nbytes,
                      HashSteps take) {
  alignas(64) uint32_t lanes[kHashLanes];
  start_lanes(lanes);
  take(lanes, {data, row_nbytes / kHashStepNbytes, rows, row_stride_nbytes});
  return fold(lanes, static_cast<size_t>(rows) * row_nbytes);
}

uint64_t hash_bytes(const void* data, size_t nbytes, int threads) {
  if (threads < 1)
    throw Error(Fault::argument,
                "[hash_bytes] threads is " + std::to_string(threads) + ", expected 1 or more");
  if (nbytes && !data) throw Error(Fault::argument, "[hash_bytes] null pointer");
  std::vector<uint64_t> pieces((nbytes + kPieceNbytes - 1) / kPieceNbytes);
  parallel_for(threads, static_cast<int64_t>(pieces.size()), [&](int, int64_t i) {
    const size_t first = static_cast<size_t>(i) * kPieceNbytes;
    pieces[static_cast<size_t>(i)] =
        hash_of(static_cast<const std::byte*>(data) + first, std::min(kPieceNbytes, nbytes - first));
  });
  return hash_of(pieces.data(), pieces.size() * sizeof(uint64_t));
}

}  // namespace lora_mmap
