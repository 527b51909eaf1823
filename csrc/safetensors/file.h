// A regular file opened for reading by position.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace lora_mmap::safetensors {

class Contents;
class Descriptor;

// What tells one state of a file from another: a rewritten or replaced file differs in at least one field
// (as far as the file system's clock resolves).
struct FileIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size = 0;  // bytes
  int64_t mtime_ns = 0;

  bool operator==(const FileIdentity&) const = default;
};

// A part of the memory that a read fills.
struct Piece {
  void* destination = nullptr;
  uint64_t nbytes = 0;
};

// Owns one descriptor (close-on-exec). Move-only. Reads share no position, so any number of threads, and
// processes forked later, may read; a read that races close() finishes on the open descriptor or throws
// Fault::closed, and never meets a descriptor number that was given to another file. Moving from a File while
// others use it is not allowed.
class File {
 public:
  // Opens without blocking. Throws OsError with the system's errno (missing, no permission ...), EISDIR for a
  // directory, EINVAL for a FIFO, socket or device; Fault::argument for a path with a NUL byte.
  explicit File(std::string path);
  ~File();
  File(File&&) noexcept;
  File& operator=(File&&) noexcept;

  const std::string& path() const { return path_; }
  const FileIdentity& identity() const { return identity_; }  // when it was opened
  uint64_t size() const { return identity_.size; }
  uint64_t bytes_read() const;
  bool closed() const;

  // The descriptor is released when the last read in flight returns. Idempotent.
  void close();

  // Throws Fault::read when the open file's size or modification time is not what it was at opening, naming
  // what `contents` (if any) had where the file now ends. A file renamed over the path does not count: the
  // descriptor still holds the old bytes.
  void check_unchanged(const Contents* contents = nullptr) const;

  // Throws Fault::argument unless the range lies within the size at opening.
  void require_range(uint64_t offset, uint64_t nbytes) const;

  // Fills the pieces one after the other with the file's bytes from `offset` on, retrying interrupted and
  // short reads. Throws Fault::read when the file ends early (truncated after it was opened), OsError when
  // the system fails, both naming what `contents` has at the byte that could not be read; the pieces are then
  // partly written.
  void read_exact(uint64_t offset, std::span<const Piece> pieces, const Contents& contents) const;
  void read_exact(uint64_t offset, uint64_t nbytes, void* destination, const Contents& contents) const;

  // Asks the system to fetch the range soon, where it is not in memory already. A hint: never fails.
  void will_need(uint64_t offset, uint64_t nbytes) const noexcept;

  // True where page faults are slow: see safetensors/file_system.h.
  bool is_remote() const;

 private:
  friend class Mapping;
  class Use;
  struct State;

  std::string path_;
  FileIdentity identity_;
  std::unique_ptr<State> state_;
};

// Keeps the descriptor open while it lives. Throws Fault::closed.
class File::Use {
 public:
  explicit Use(const File& file);
  ~Use();
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;
  int fd() const;

 private:
  Descriptor& descriptor_;
};

}  // namespace lora_mmap::safetensors
