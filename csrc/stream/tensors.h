// Some tensors of a file, read into memory that the caller provides.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "safetensors/file.h"
#include "safetensors/header.h"
#include "stream/ranges.h"

namespace lora_mmap::stream {

// Where the tensors (indices into header.tensors()) go: the fewest spans of the file that hold them, bridging
// gaps of at most `max_gap` bytes, each at a multiple of `alignment` bytes. Throws Fault::argument for an
// index out of range and as plan_staging does.
StagingPlan plan_tensors(const safetensors::Header& header, std::span<const size_t> tensors, uint64_t max_gap,
                         uint64_t alignment);

// Reads what `plan` says to `destination`, which may be of any kind that the CPU can write to (pinned memory,
// say). `header` must be the file's. Throws Fault::argument, before anything is read, when the plan needs
// more bytes than there are; otherwise as read().
void read_planned(const safetensors::File& file, const safetensors::Header& header, const StagingPlan& plan,
                  std::span<std::byte> destination, int threads = 1);

}  // namespace lora_mmap::stream
