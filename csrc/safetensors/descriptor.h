// The file descriptor behind a File, shared by the reads in flight so that it outlives them.
#pragma once

#include <unistd.h>

#include "safetensors/file.h"

namespace lora_mmap::safetensors {

class File::Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { ::close(fd_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int fd() const { return fd_; }

 private:
  int fd_;
};

}  // namespace lora_mmap::safetensors
