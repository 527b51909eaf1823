// Which bytes of one file to read together, and where they go. Pure functions; no IO.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lora_mmap::stream {

struct Range {
  uint64_t offset = 0;  // bytes from the start of the file
  uint64_t nbytes = 0;

  uint64_t end() const { return offset + nbytes; }
  bool operator==(const Range&) const = default;
};

// The fewest disjoint spans, in file order, that hold every wanted byte: wanted ranges that touch or overlap
// are merged, and so are neighbours at most `max_gap` bytes apart, unless a barred range has a byte in the
// gap (bytes that are read at another time, so that nothing is read twice). Wanted bytes are read even where
// they are barred. Ranges may come in any order; empty ones are dropped. Throws Fault::argument when a range
// ends beyond 2^64 - 1.
std::vector<Range> coalesce(std::span<const Range> wanted, std::span<const Range> barred, uint64_t max_gap);

// One read: `range` of the file goes to `position` of the staging buffer.
struct Span {
  Range range;
  uint64_t position = 0;
};

struct StagingPlan {
  std::vector<Span> spans;          // in file order, at ascending positions
  std::vector<uint64_t> positions;  // where wanted[i] begins in the staging buffer; 0 for an empty range
  uint64_t nbytes = 0;              // of the staging buffer
};

// Lays the coalesced spans out one after the other, each at a multiple of `alignment` bytes (a power of two).
// Throws Fault::argument as coalesce does, for another alignment, and when the buffer would exceed 2^64 - 1.
StagingPlan plan_staging(std::span<const Range> wanted, std::span<const Range> barred, uint64_t max_gap,
                         uint64_t alignment);

}  // namespace lora_mmap::stream
