// A file descriptor that is released when the last read in flight returns.
#pragma once

#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace lora_mmap::safetensors {

// One atomic word and no lock: a process forked while another thread reads finds nothing held. (Such a read
// never ends in the child, so there close() leaves the number to the end of the process.)
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { close(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int fd() const { return fd_; }  // only good between acquire() and release()
  bool closed() const { return uses_.load() & kClosed; }

  // False once closed; otherwise release() must follow.
  bool acquire() {
    uint64_t uses = uses_.load();
    while (!(uses & kClosed))
      if (uses_.compare_exchange_weak(uses, uses + 1)) return true;
    return false;
  }
  void release() {
    if (uses_.fetch_sub(1) == kClosed + 1) ::close(fd_);
  }
  void close() {
    if (uses_.fetch_or(kClosed) == 0) ::close(fd_);
  }

 private:
  static constexpr uint64_t kClosed = uint64_t{1} << 63;

  const int fd_;
  std::atomic<uint64_t> uses_{0};  // reads in flight, and kClosed
};

}  // namespace lora_mmap::safetensors
