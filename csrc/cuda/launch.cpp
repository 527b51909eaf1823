#include "cuda/launch.h"

#include <algorithm>
#include <vector>

#include "cuda/driver/driver.h"
#include "cuda/kernels/table.h"
#include "cuda/pinned_block.h"
#include "cuda/stream_memory.h"

namespace lora_mmap::cuda {
namespace {

struct Prepared {
  CUfunction kernel = nullptr;
  unsigned blocks = 0;
};

Prepared prepare(Device& device, const Launch& launch) {
  const CUfunction kernel = device.kernel(launch.kernel);
  return {kernel,
          std::min(launch.tiles, device.resident_blocks(kernel, launch.threads, launch.shared_nbytes))};
}

void submit(CUstream stream, const Launch& launch, const Prepared& prepared, CUdeviceptr table,
            size_t sums_offset, CUdeviceptr flags) {
  FuseParams fuse{.jobs = table + launch.rows_offset,
                  .terms = table + launch.terms_offset,
                  .flags = flags,
                  .n_tiles = launch.tiles,
                  .n_jobs = launch.rows};
  GainsParams gains{.jobs = table + launch.rows_offset,
                    .terms = table + launch.terms_offset,
                    .sums = table + sums_offset,
                    .flags = flags,
                    .n_tiles = launch.tiles,
                    .n_jobs = launch.rows};
  CopyParams copy{.rects = table + launch.rows_offset, .n_tiles = launch.tiles, .n_rects = launch.rows};
  StepParams step{.steps = table + launch.rows_offset,
                  .terms = table + launch.terms_offset,
                  .flags = flags,
                  .n_tiles = launch.tiles,
                  .n_steps = launch.rows,
                  .force = launch.takes == Takes::forced_step ? 1U : 0U};
  void* parameters[] = {&fuse};
  if (launch.takes == Takes::gains) parameters[0] = &gains;
  if (launch.takes == Takes::copy) parameters[0] = &copy;
  if (launch.takes == Takes::step || launch.takes == Takes::forced_step) parameters[0] = &step;
  driver().cuLaunchKernel(prepared.kernel, prepared.blocks, 1, 1, launch.threads, 1, 1, launch.shared_nbytes,
                          stream, parameters, nullptr);
}

}  // namespace

void launch(Device& device, CUstream stream, const Table& table, CUdeviceptr address, CUdeviceptr flags) {
  device.refuse_capture(stream);
  std::vector<Prepared> prepared;
  for (const Launch& launch : table.launches) prepared.push_back(prepare(device, launch));
  if (prepared.empty()) return;
  put(device, stream, table.bytes.data(), table.bytes.size(), address);
  try {
    for (size_t i = 0; i < prepared.size(); ++i)
      submit(stream, table.launches[i], prepared[i], address, table.bytes.size(), flags);
  } catch (...) {  // those before it were submitted
    device.pinned_blocks().used_on(stream, table.data);
    throw;
  }
  device.pinned_blocks().used_on(stream, table.data);
}

uint64_t probe_ffma(Device& device, CUstream stream, uint32_t rounds, CUdeviceptr sink) {
  device.refuse_capture(stream);
  const CUfunction kernel = device.kernel("lora_mmap_probe_ffma");
  const unsigned blocks = device.resident_blocks(kernel, kThreads, 0);
  ProbeParams probe{.sink = sink, .rounds = rounds, .factor = 0.5F};
  void* parameters[] = {&probe};
  driver().cuLaunchKernel(kernel, blocks, 1, 1, kThreads, 1, 1, 0, stream, parameters, nullptr);
  return uint64_t{blocks} * kThreads * rounds * kProbeChain;
}

}  // namespace lora_mmap::cuda
