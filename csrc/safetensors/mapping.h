// A whole file in memory, for zero-copy views.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lora_mmap::safetensors {

class File;

// Read-only private mapping of the File's size at opening. Move-only; unmapped by the destructor, independent
// of the File, its close() and the path. Views into data() must not outlive it. Touching a page that the file
// no longer has (truncated by somebody) kills the process with SIGBUS: code that must survive that reads with
// File::read_exact.
class Mapping {
 public:
  explicit Mapping(const File& file);  // throws OsError, Fault::closed
  ~Mapping();
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;

  const std::byte* data() const { return data_; }  // page-aligned; null when nbytes() is 0
  uint64_t nbytes() const { return nbytes_; }

 private:
  std::byte* data_ = nullptr;
  uint64_t nbytes_ = 0;
};

}  // namespace lora_mmap::safetensors
