// Pristine values from a checkpoint file back into weights.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "undo/file_part.h"
#include "undo/record.h"
#include "undo/step.h"

namespace lora_mmap {

struct FileRestore {
  FilePart part;                   // of the weight, which had these values bit for bit
  std::shared_ptr<Record> record;  // of the same rectangle
};

// Writes the file's values over every tile that its record says is written, and then that it is undone, on up
// to `threads` threads. A tile whose hash is not the record's stays, and the call stops, unless `force`;
// returned are those found, ascending.
//
// A tile is written in one go after all its bytes have been read and the file has been found unchanged: after
// any failure each is entirely old or entirely new. Throws Error(Fault::argument) before the first byte is
// written, Error(Fault::read) or OsError where a file ends early, fails, or is not what it was when opened.
std::vector<ForeignTile> restore_from_file(const std::vector<FileRestore>& items, int threads, bool force,
                                           const std::optional<std::string>& isa = std::nullopt);

}  // namespace lora_mmap
