#include "cuda/launch.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <string>

#include "base/error.h"
#include "cuda/driver/driver.h"
#include "cuda/driver/failure.h"
#include "cuda/kernels/table.h"
#include "stream/ring.h"

namespace lora_mmap::cuda {
namespace {

// A launch whose kernel is loaded: nothing but the driver can refuse it any more.
struct Ready {
  const Launch& launch;
  CUfunction function;
  unsigned blocks;
};

std::vector<Ready> make_ready(Device& device, const std::vector<Launch>& launches) {
  std::vector<Ready> ready;
  for (const Launch& launch : launches) {
    const CUfunction function = device.kernel(launch.kernel);
    const unsigned resident = device.resident_blocks(function, launch.threads, launch.shared_nbytes);
    ready.push_back({launch, function, std::min(resident, launch.tiles)});
  }
  return ready;
}

void check_room(const Table& made, CUdeviceptr table, size_t table_nbytes) {
  if (table_nbytes < made.bytes.size())
    throw Error(Fault::argument, Calling::prefix() + "the table takes " + std::to_string(made.bytes.size()) +
                                     " bytes, given " + std::to_string(table_nbytes));
  if (table % 16 != 0)
    throw Error(Fault::argument, Calling::prefix() + "the table's memory is not aligned to 16 bytes");
}

void upload_table(Device& device, CUstream stream, std::span<const std::byte> bytes, CUdeviceptr to) {
  const uint64_t total = bytes.size();
  while (!bytes.empty()) {
    stream::Ring::Slot slot = device.ring().acquire(total);
    const size_t nbytes = std::min(slot.nbytes(), bytes.size());
    std::memcpy(slot.data(), bytes.data(), nbytes);
    driver().cuMemcpyHtoDAsync(to, slot.data(), nbytes, stream);
    slot.copied_on(stream);
    bytes = bytes.subspan(nbytes);
    to += nbytes;
  }
}

template <class Params>
void launch(CUfunction function, unsigned blocks, unsigned threads, unsigned shared_nbytes, CUstream stream,
            Params params) {
  void* args[] = {&params};
  driver().cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, shared_nbytes, stream, args, nullptr);
}

// `params_of(launch)` is what a kernel of the table gets.
template <class ParamsOf>
void run(Device& device, CUstream stream, const Table& made, CUdeviceptr table, size_t table_nbytes,
         ParamsOf params_of) {
  check_room(made, table, table_nbytes);
  device.refuse_capture(stream);
  const std::vector<Ready> launches = make_ready(device, made.launches);
  upload_table(device, stream, made.bytes, table);
  for (const Ready& ready : launches)
    launch(ready.function, ready.blocks, ready.launch.threads, ready.launch.shared_nbytes, stream,
           params_of(ready.launch));
}

}  // namespace

void fuse(Device& device, CUstream stream, const std::vector<Job>& jobs, Numerics numerics, CUdeviceptr table,
          size_t table_nbytes, CUdeviceptr flags) {
  const DeviceFacts& facts = device.facts();
  const Table made = fuse_table(jobs, numerics, 10 * facts.major + facts.minor);
  run(device, stream, made, table, table_nbytes, [&](const Launch& launch) {
    return FuseParams{.jobs = table + launch.rows_offset,
                      .terms = table + launch.terms_offset,
                      .flags = flags,
                      .n_tiles = launch.tiles,
                      .n_jobs = launch.rows};
  });
}

void copy(Device& device, CUstream stream, const std::vector<Rect>& rects, CUdeviceptr table,
          size_t table_nbytes) {
  run(device, stream, copy_table(rects), table, table_nbytes, [&](const Launch& launch) {
    return CopyParams{.rects = table + launch.rows_offset, .n_tiles = launch.tiles, .n_rects = launch.rows};
  });
}

uint64_t probe_ffma(Device& device, CUstream stream, uint32_t rounds, CUdeviceptr sink) {
  device.refuse_capture(stream);
  const CUfunction function = device.kernel("lora_mmap_probe_ffma");
  const unsigned blocks = device.resident_blocks(function, kThreads, 0);
  launch(function, blocks, kThreads, 0, stream, ProbeParams{.sink = sink, .rounds = rounds, .factor = 0.5F});
  return uint64_t{blocks} * kThreads * rounds * kProbeChain;
}

}  // namespace lora_mmap::cuda
