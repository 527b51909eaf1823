#include "safetensors/mapping.h"

#include <sys/mman.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "safetensors/descriptor.h"

namespace lora_mmap::safetensors {

Mapping::Mapping(const File& file) {
  const auto open = file.descriptor();
  if (file.size() == 0) return;  // mmap refuses empty ranges
  void* const address = ::mmap(nullptr, file.size(), PROT_READ, MAP_PRIVATE, open->fd(), 0);
  if (address == MAP_FAILED) {
    const int code = errno;
    throw OsError(code, file.path(), std::generic_category().message(code) + ": " + file.path());
  }
  data_ = static_cast<std::byte*>(address);
  nbytes_ = file.size();
}

Mapping::~Mapping() {
  if (data_) ::munmap(data_, nbytes_);
}

Mapping::Mapping(Mapping&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), nbytes_(std::exchange(other.nbytes_, 0)) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(nbytes_, other.nbytes_);
  return *this;
}

}  // namespace lora_mmap::safetensors
