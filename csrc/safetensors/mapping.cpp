#include "safetensors/mapping.h"

#include <sys/mman.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "safetensors/file.h"

namespace lora_mmap::safetensors {

Mapping::Mapping(const File& file) : path_(file.path()) {
  const File::Use open(file);
  if (file.size() == 0) return;  // mmap refuses empty ranges
  // Without MAP_NORESERVE a strict system counts the whole file as memory that might be needed for copies.
  void* const address =
      ::mmap(nullptr, file.size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, open.fd(), 0);
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
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      nbytes_(std::exchange(other.nbytes_, 0)) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(nbytes_, other.nbytes_);
  return *this;
}

}  // namespace lora_mmap::safetensors
