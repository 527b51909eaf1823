#include "stream/memory.h"

#include <sys/mman.h>

#include <new>
#include <utility>

namespace lora_mmap::stream {
namespace {

constexpr uint64_t kHugePagesFrom = uint64_t{4} << 20;

}  // namespace

Memory::Memory(uint64_t nbytes, HugePages huge_pages) {
  if (nbytes == 0) return;
  void* const address = ::mmap(nullptr, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
  if (huge_pages == HugePages::yes && nbytes >= kHugePagesFrom) ::madvise(address, nbytes, MADV_HUGEPAGE);
#endif
  data_ = static_cast<std::byte*>(address);
  nbytes_ = nbytes;
}

Memory::Memory(Memory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), nbytes_(std::exchange(other.nbytes_, 0)) {}

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(nbytes_, other.nbytes_);
  return *this;
}

void Memory::free() {
  if (data_) ::munmap(data_, nbytes_);
  data_ = nullptr;
  nbytes_ = 0;
}

}  // namespace lora_mmap::stream
