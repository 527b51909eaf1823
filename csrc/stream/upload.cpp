#include "stream/upload.h"

#include <algorithm>

#include "base/error.h"
#include "base/thread_pool.h"
#include "safetensors/counters.h"
#include "stream/ring.h"
#include "stream/transfers.h"

namespace lora_mmap::stream {
namespace {

using cuda::Calling;
using cuda::CUevent;
using cuda::CurrentContext;
using cuda::CUstream;
using cuda::Device;
using cuda::driver;

// Slots' worth of file that the system is asked for ahead of the one that is read.
constexpr int64_t kAhead = 4;

// Bytes in all. Throws before anything is done for a request that makes no sense.
uint64_t checked_total(std::span<const UploadRequest> requests) {
  uint64_t total = 0;
  for (const UploadRequest& request : requests) {
    if (request.nbytes == 0) continue;
    if (request.file)
      request.file->require_range(request.offset, request.nbytes);
    else if (!request.source)
      throw Error(Fault::argument,
                  Calling::prefix() + "a request has neither a file nor an address to copy from");
    if (request.destination == 0 || request.destination + request.nbytes < request.destination)
      throw Error(Fault::argument, Calling::prefix() + "a request has no device address to copy to");
    total += request.nbytes;
  }
  return total;
}

// One upload() call: what its workers share.
class Upload {
 public:
  Upload(Device& device, std::span<const UploadRequest> requests, uint64_t total)
      : device_(device),
        stream_(device.copy_stream()),
        function_(Calling::function()),
        total_(total),
        transfers_(requests, Ring::slot_nbytes(total)) {}

  void run(CUevent after, int threads) {
    if (after) driver().cuStreamWaitEvent(stream_, after, 0);
    const auto count = static_cast<int64_t>(transfers_.size());
    for (int64_t i = 1; i < std::min(kAhead, count); ++i) transfers_.will_need(static_cast<size_t>(i));
    parallel_for(threads, count, [&](int, int64_t i) {
      if (i + kAhead < count) transfers_.will_need(static_cast<size_t>(i + kAhead));
      const CurrentContext current = device_.enter(function_);
      transfer(static_cast<size_t>(i));
    });
  }

  void let_wait(CUstream consumer) {
    cuda::Event done;
    done.record(stream_);
    driver().cuStreamWaitEvent(consumer, done.get(), 0);
  }

  // Until no copy is in flight. What goes wrong here went wrong before, and is being thrown.
  void drain() noexcept { static_cast<void>(driver().cuStreamSynchronize.result(stream_)); }

 private:
  void transfer(size_t i) {
    const Transfer& transfer = transfers_[i];
    Ring::Slot slot = device_.ring().acquire(total_);
    transfers_.fill(i, slot.data());
    driver().cuMemcpyHtoDAsync(transfer.destination, slot.data(), transfer.nbytes, stream_);
    slot.copied_on(stream_);
    safetensors::count(safetensors::counters().copies_issued);
    safetensors::count(safetensors::counters().bytes_uploaded, transfer.nbytes);
  }

  Device& device_;
  const CUstream stream_;
  const char* const function_;
  const uint64_t total_;
  const Transfers transfers_;
};

}  // namespace

void upload(Device& device, std::span<const UploadRequest> requests, CUevent after, CUstream consumer,
            int threads) {
  const uint64_t total = checked_total(requests);
  if (total == 0) return;
  device.refuse_capture(consumer);
  Upload upload(device, requests, total);
  try {
    upload.run(after, threads);
    upload.let_wait(consumer);
  } catch (...) {
    upload.drain();
    throw;
  }
}

}  // namespace lora_mmap::stream
