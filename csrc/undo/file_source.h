// Checkpoint files as the source of pristine values: compared with weights, and read to where they are
// wanted.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "undo/file_part.h"

namespace lora_mmap {

// For each part whether the weight has, bit for bit, the values of the file, rounded to its type where that
// is another (see converter()). A part is no longer read once an element differs.
//
// Both work on up to `threads` threads, hold at most 16 MiB between them in nearly every case (columns of a
// convolution in another order are read by whole rows), and map nothing. `isa` changes no bit. They throw
// Error(Fault::argument) before anything is read, and Error(Fault::read) or OsError where a file ends early,
// fails, or is not what it was when it was opened.
std::vector<bool> equals_file(const std::vector<FilePart>& parts, int threads,
                              const std::optional<std::string>& isa = std::nullopt);

// Writes those values. After a failure some may have been written.
void read_converted(const std::vector<FilePart>& parts, int threads,
                    const std::optional<std::string>& isa = std::nullopt);

}  // namespace lora_mmap
