// Factors on their way to the tensor cores: raw, in chunks of up to 32 ranks, filled up with zeros to 16
// or 32.
#pragma once

#include "cuda/kernels/arithmetic.h"
#include "cuda/kernels/device.cuh"
#include "cuda/kernels/factor.cuh"
#include "cuda/kernels/table.h"
#include "cuda/kernels/tiles.cuh"

namespace lora_mmap::cuda {

struct FastFactors {
  u16 up[kFastTile.rows][kFastUpPitch];  // [row][rank]
  u16 down[kFastRanks][kFastDownPitch];  // [rank][column]
};

struct FastChunk {
  u32 term;
  u32 end;  // of the job's terms
  i32 first;
  i32 ranks;
};

LORA_MMAP_DEVICE const TermRow& term_of(const FuseParams& params, const FastChunk& chunk) {
  return pointer_to<const TermRow>(params.terms)[chunk.term];
}

LORA_MMAP_DEVICE void set_ranks(const FuseParams& params, FastChunk& chunk) {
  const i32 left = term_of(params, chunk).rank - chunk.first;
  chunk.ranks = left < static_cast<i32>(kFastRanks) ? left : static_cast<i32>(kFastRanks);
}

LORA_MMAP_DEVICE FastChunk first_fast_chunk(const FuseParams& params, const JobRow& job) {
  FastChunk chunk{job.first_term, job.first_term + job.n_terms, 0, 0};
  set_ranks(params, chunk);
  return chunk;
}

LORA_MMAP_DEVICE bool ends_term(const FuseParams& params, const FastChunk& chunk) {
  return chunk.first + chunk.ranks == term_of(params, chunk).rank;
}

// False if there is none after it.
LORA_MMAP_DEVICE bool advance(const FuseParams& params, FastChunk& chunk) {
  chunk.first += chunk.ranks;
  if (chunk.first == term_of(params, chunk).rank) {
    if (++chunk.term == chunk.end) return false;
    chunk.first = 0;
  }
  set_ranks(params, chunk);
  return true;
}

// The first `count` (of 8) elements at `from`, then zeros. Visible to all after copies_wait and a barrier.
LORA_MMAP_DEVICE void bring_eight(u16* to, u64 from, i32 count, bool rows16, bool bytewise) {
  if (count < 0) count = 0;
  if (count > 8) count = 8;
#if LORA_MMAP_ARCH >= 80
  if (rows16) {
    copy_begin_16(to, from, static_cast<u32>(count) * 2);
    return;
  }
#else
  if (rows16 && count == 8) {
    *reinterpret_cast<Words4*>(to) = load_constant_16(from);
    return;
  }
#endif
#pragma unroll
  for (i32 i = 0; i < 8; ++i) to[i] = i < count ? load_bits<u16>(from + 2 * i, bytewise) : u16{0};
}

LORA_MMAP_DEVICE void bring_chunk(const FuseParams& params, const Tile& tile, const FastChunk& chunk,
                                  FastFactors& factors) {
  const TermRow& term = term_of(params, chunk);
  const i32 padded = (chunk.ranks + 15) / 16 * 16;
  const i32 thread = thread_index_again();
  for (i32 m = thread / 4; m < static_cast<i32>(kFastTile.rows); m += static_cast<i32>(kThreads) / 4) {
    const i32 r = thread % 4 * 8;
    if (r >= padded) continue;
    const i32 count = m < tile.rows() ? chunk.ranks - r : 0;
    // What is not there is not addressed either.
    const u64 from =
        count > 0 ? term.up + ((tile.row + m) * term.up_row_stride + chunk.first + r) * 2 : term.up;
    bring_eight(&factors.up[m][r], from, count, term.layout & kUpRows16, term.layout & kUpBytes);
  }
  const i32 r = thread / 8;
  const i32 n = thread % 8 * 8;
  if (r >= padded) return;
  const i32 count = r < chunk.ranks ? tile.cols() - n : 0;
  const u64 from =
      count > 0 ? term.down + ((chunk.first + r) * term.down_row_stride + tile.col + n) * 2 : term.down;
  bring_eight(&factors.down[r][n], from, count, term.layout & kDownRows16, term.layout & kDownBytes);
}

static_assert(sizeof(FastFactors) == kFastFactorsNbytes, "shared memory as launched");

}  // namespace lora_mmap::cuda
