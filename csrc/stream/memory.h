// A block of anonymous memory, given back to the system as soon as it is freed.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lora_mmap::stream {

enum class HugePages { no, yes };  // `yes` asks the kernel for them from 4 MiB on; a hint, never an error

// Owns page-aligned, zero-filled memory outside of the C++ heap, so freeing it really lowers the process's
// footprint. Move-only.
class Memory {
 public:
  explicit Memory(uint64_t nbytes, HugePages huge_pages = HugePages::no);  // throws std::bad_alloc
  ~Memory() { free(); }
  Memory(Memory&& other) noexcept;
  Memory& operator=(Memory&& other) noexcept;

  std::byte* data() const { return data_; }  // null when nbytes() is 0
  uint64_t nbytes() const { return nbytes_; }

  void free();  // leaves nbytes() == 0; pointers into the block are dangling. Idempotent.

 private:
  std::byte* data_ = nullptr;
  uint64_t nbytes_ = 0;
};

}  // namespace lora_mmap::stream
