#include "stream/ranges.h"

#include <algorithm>
#include <bit>
#include <string>

#include "base/error.h"

namespace lora_mmap::stream {
namespace {

uint64_t checked_add(uint64_t a, uint64_t b) {
  uint64_t sum;
  if (__builtin_add_overflow(a, b, &sum))
    throw Error(Fault::argument,
                "a byte range ends beyond 2^64 - 1: " + std::to_string(a) + " + " + std::to_string(b));
  return sum;
}

std::vector<Range> sorted_without_empty(std::span<const Range> ranges) {
  std::vector<Range> sorted;
  sorted.reserve(ranges.size());
  for (const Range& range : ranges) {
    checked_add(range.offset, range.nbytes);
    if (range.nbytes > 0) sorted.push_back(range);
  }
  std::sort(sorted.begin(), sorted.end(), [](const Range& a, const Range& b) { return a.offset < b.offset; });
  return sorted;
}

// Ranges that touch or overlap become one.
std::vector<Range> merged(std::span<const Range> ranges) {
  std::vector<Range> result;
  for (const Range& range : sorted_without_empty(ranges)) {
    if (result.empty() || range.offset > result.back().end())
      result.push_back(range);
    else
      result.back().nbytes = std::max(result.back().end(), range.end()) - result.back().offset;
  }
  return result;
}

}  // namespace

std::vector<Range> coalesce(std::span<const Range> wanted, std::span<const Range> barred, uint64_t max_gap) {
  const std::vector<Range> walls = merged(barred);
  auto wall = walls.begin();
  std::vector<Range> spans;
  for (const Range& next : merged(wanted)) {
    if (spans.empty()) {
      spans.push_back(next);
      continue;
    }
    Range& last = spans.back();
    while (wall != walls.end() && wall->end() <= last.end()) ++wall;
    const bool barred_gap = wall != walls.end() && wall->offset < next.offset;
    if (barred_gap || next.offset - last.end() > max_gap)
      spans.push_back(next);
    else
      last.nbytes = next.end() - last.offset;
  }
  return spans;
}

StagingPlan plan_staging(std::span<const Range> wanted, std::span<const Range> barred, uint64_t max_gap,
                         uint64_t alignment) {
  if (!std::has_single_bit(alignment))
    throw Error(Fault::argument, "alignment must be a power of two, got " + std::to_string(alignment));
  StagingPlan plan;
  for (const Range& range : coalesce(wanted, barred, max_gap)) {
    const uint64_t position = checked_add(plan.nbytes, alignment - 1) & ~(alignment - 1);
    plan.spans.push_back({range, position});
    plan.nbytes = checked_add(position, range.nbytes);
  }
  plan.positions.reserve(wanted.size());
  for (const Range& range : wanted) {
    if (range.nbytes == 0) {
      plan.positions.push_back(0);
      continue;
    }
    const auto after =
        std::upper_bound(plan.spans.begin(), plan.spans.end(), range.offset,
                         [](uint64_t offset, const Span& span) { return offset < span.range.offset; });
    const Span& span = *(after - 1);
    plan.positions.push_back(span.position + (range.offset - span.range.offset));
  }
  return plan;
}

}  // namespace lora_mmap::stream
