// Which bytes go to a device together: stretches of device memory that fit a slot, and what fills them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "stream/upload.h"

namespace lora_mmap::stream {

// One copy. Valid as long as the requests that it was cut from.
struct Transfer {
  cuda::CUdeviceptr destination = 0;
  size_t nbytes = 0;
  size_t first_part = 0;
  size_t n_parts = 0;
};

// A piece of one request, and where it lies in its transfer.
struct Part {
  const UploadRequest* request = nullptr;
  uint64_t from = 0;  // bytes into the request
  uint64_t nbytes = 0;
  size_t position = 0;
};

class Transfers {
 public:
  // Cuts `requests`, in their order, into transfers of at most `max_nbytes`. Empty requests are left out.
  Transfers(std::span<const UploadRequest> requests, size_t max_nbytes);

  size_t size() const { return transfers_.size(); }
  const Transfer& operator[](size_t i) const { return transfers_[i]; }

  // Writes the transfer's bytes to `staging`, from files and memory. Throws as File::read_exact does. Safe
  // for several transfers at once.
  void fill(size_t i, std::byte* staging) const;

  // Asks the system to fetch what fill() will read from files.
  void will_need(size_t i) const;

 private:
  void add(const UploadRequest& request, size_t max_nbytes);
  std::span<const Part> parts(size_t i) const;

  std::vector<Transfer> transfers_;
  std::vector<Part> parts_;
};

}  // namespace lora_mmap::stream
