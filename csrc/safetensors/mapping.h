// A whole file in memory, for zero-copy views.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace lora_mmap::safetensors {

class File;

// Private copy-on-write mapping of the File's size at opening: what is written to it stays in this process
// and this mapping. Reserves no memory for the copies. Move-only; unmapped by the destructor, independent of
// the File, its close() and the path. Views into data() must not outlive it. Touching a page that the file no
// longer has (truncated by somebody) kills the process with SIGBUS, so the core hands addresses out and never
// reads here itself: that is what File::read_exact is for.
class Mapping {
 public:
  explicit Mapping(const File& file);  // throws OsError, Fault::closed
  ~Mapping();
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;

  std::byte* data() const { return data_; }  // page-aligned; null when nbytes() is 0
  uint64_t nbytes() const { return nbytes_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::byte* data_ = nullptr;
  uint64_t nbytes_ = 0;
};

}  // namespace lora_mmap::safetensors
