// The blocks of many parts of checkpoint files, handed out to workers.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "fuse/kernel.h"
#include "fuse/schedule.h"
#include "undo/file_reader.h"

namespace lora_mmap {

class FileBlocks {
 public:
  // Throws Error(Fault::argument), naming `function`, for less than one thread, and for an unknown `isa`.
  FileBlocks(const char* function, int threads, const std::optional<std::string>& isa);

  // The blocks of the next part. Their sizes are multiples of the steps (rows and columns of the part
  // itself), but at its ends.
  void add(const FilePart& part, int64_t row_step = 1, int64_t col_step = 1);

  // A block of a part, and what the worker that takes it lends it.
  struct Work {
    size_t part;
    const FileReader& reader;
    Block block;
    int worker;  // below workers()
    Workspace& workspace;
  };

  int workers() const { return workers_; }

  // Every block once, in any order, on several threads, each under a FloatEnv. The first exception stops what
  // has not begun and is rethrown when all have ended.
  void for_each(const std::function<void(const Work&)>& use) const;

 private:
  const int workers_;
  const bool vectorised_;
  const size_t most_nbytes_;  // of a worker's scratch
  std::vector<FileReader> readers_;
  Schedule schedule_;
};

}  // namespace lora_mmap
