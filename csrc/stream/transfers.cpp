#include "stream/transfers.h"

#include <algorithm>
#include <cstring>

#include "stream/chunks.h"

namespace lora_mmap::stream {

Transfers::Transfers(std::span<const UploadRequest> requests, size_t max_nbytes) {
  for (const UploadRequest& request : requests) add(request, max_nbytes);
}

void Transfers::add(const UploadRequest& request, size_t max_nbytes) {
  for (uint64_t from = 0; from < request.nbytes;) {
    const cuda::CUdeviceptr to = request.destination + from;
    const bool follows = !transfers_.empty() &&
                         to - transfers_.back().destination >= transfers_.back().nbytes &&
                         to - transfers_.back().destination < transfers_.back().nbytes + kCopyGap;
    // A gap that reaches beyond the slot is nobody's to fill.
    if (!follows || to - transfers_.back().destination >= max_nbytes)
      transfers_.push_back({to, 0, parts_.size(), 0});
    Transfer& transfer = transfers_.back();
    const size_t position = to - transfer.destination;
    const uint64_t nbytes = std::min<uint64_t>(max_nbytes - position, request.nbytes - from);
    parts_.push_back({&request, from, nbytes, position});
    ++transfer.n_parts;
    transfer.nbytes = position + nbytes;
    from += nbytes;
  }
}

std::span<const Part> Transfers::parts(size_t i) const {
  return std::span(parts_).subspan(transfers_[i].first_part, transfers_[i].n_parts);
}

void Transfers::fill(size_t i, std::byte* staging) const {
  Chunks chunks;
  for (const auto& [request, from, nbytes, position] : parts(i)) {
    std::byte* const to = staging + position;
    if (request->file)
      chunks.add({request->file, request->contents, request->offset + from, nbytes, to});
    else
      std::memcpy(to, static_cast<const std::byte*>(request->source) + from, nbytes);
  }
  for (size_t chunk = 0; chunk < chunks.size(); ++chunk) chunks.read(chunk);
}

void Transfers::will_need(size_t i) const {
  const safetensors::File* file = nullptr;
  uint64_t begin = 0;
  uint64_t end = 0;
  for (const Part& part : parts(i)) {
    if (!part.request->file) continue;
    const uint64_t offset = part.request->offset + part.from;
    if (part.request->file != file || offset != end) {
      if (file) file->will_need(begin, end - begin);
      file = part.request->file;
      begin = offset;
    }
    end = offset + part.nbytes;
  }
  if (file) file->will_need(begin, end - begin);
}

}  // namespace lora_mmap::stream
