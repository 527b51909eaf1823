// The interface of one implementation of fusion, and the scratch memory that a worker lends it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <string_view>

#include "fuse/gains.h"
#include "fuse/job.h"

namespace lora_mmap {

// Scratch of one worker for one call, aligned to a cache line, allocated at the first use. Not thread-safe.
class Workspace {
 public:
  static constexpr size_t kAlignment = 64;

  // At least `nbytes` bytes. Contents (and `packed`) survive as long as no call asks for more than before.
  std::byte* reserve(size_t nbytes) {
    if (nbytes > capacity_) {
      packed = {};
      nbytes = (nbytes + kAlignment - 1) / kAlignment * kAlignment;
      memory_.reset(static_cast<std::byte*>(std::aligned_alloc(kAlignment, nbytes)));
      capacity_ = memory_ ? nbytes : 0;
      if (!memory_) throw std::bad_alloc();
    }
    return memory_.get();
  }

  // Whose columns of A the scratch still holds, so that the next block below them need not pack them again.
  struct Packed {
    const Job* job = nullptr;
    int64_t col = 0;
    bool operator==(const Packed&) const = default;
  } packed;

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  size_t capacity_ = 0;
};

// How a job is cut into blocks. Changes no bit of the result.
struct Tiling {
  int64_t rows;
  int64_t cols;
  size_t scratch_nbytes;  // what one worker needs for a block
};

class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual std::string_view name() const = 0;

  // Blocks for `job` that need at most `scratch_limit` bytes per worker (80 KiB at least is assumed).
  virtual Tiling tiling(const Job& job, size_t scratch_limit) const = 0;

  // Fuses one block, under a FloatEnv. True when a result is not finite where the base was.
  virtual bool fuse(const Job& job, const Block& block, Workspace& workspace) const = 0;

  // Tiles for the norms of a job that has elements, of kMostNorms rows and columns at most.
  virtual Tiling norm_tiling(const Gains& gains, size_t scratch_limit) const = 0;

  // sums[i]: the sum of v * v over row (or column) i of `block`, in the order that Gains states. The block
  // has all columns and a tile's rows, or all rows and a tile's columns. Under a FloatEnv.
  virtual void sum_squares(const Gains& gains, const Block& block, const Tiling& tiling, Workspace& workspace,
                           double* sums) const = 0;
};

}  // namespace lora_mmap
