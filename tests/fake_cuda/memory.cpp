// Which memory is whose, and whether it is used in time.
#include "world.h"

namespace fake {

bool is_pinned(const Range& range) {
  const auto& pinned = world().pinned;
  const auto after = pinned.upper_bound(range.begin);
  if (after == pinned.begin()) return false;
  const auto& [begin, nbytes] = *std::prev(after);
  return range.within({begin, nbytes});
}

std::shared_ptr<DeviceMemory> device_memory(const Range& range) {
  const auto& memory = world().memory;
  const auto after = memory.upper_bound(range.begin);
  if (after == memory.begin()) return nullptr;
  const std::shared_ptr<DeviceMemory>& found = std::prev(after)->second;
  return range.within(found->range) ? found : nullptr;
}

Use use_of(const Range& range, const std::string& name) {
  std::shared_ptr<DeviceMemory> memory = device_memory(range);
  if (memory && memory->freed) violation(name + " uses device memory that is free");
  const uint64_t frees_told = memory ? memory->frees_told : 0;
  return {range, std::move(memory), frees_told};
}

void check_memory_is_used_in_time(const Operation& operation) {
  for (const Use& use : operation.uses) {
    if (!use.memory) continue;
    if (use.memory->frees_reached < use.frees_told)
      violation(operation.name + " uses device memory before the stream that it was freed on got there");
    if (use.memory->frees_reached > use.frees_told)
      violation(operation.name + " uses device memory after it was freed");
  }
}

void check_not_in_use(const Range& range, const std::string& what) {
  for (const Stream* stream : world().streams)
    for (const Operation& operation : stream->queue)
      for (const Use& use : operation.uses)
        if (use.range.overlaps(range)) return violation(what + " while " + operation.name + " is in flight");
}

}  // namespace fake
