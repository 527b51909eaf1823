#include "stream/tensors.h"

#include <string>
#include <vector>

#include "base/error.h"
#include "stream/reader.h"

namespace lora_mmap::stream {

using safetensors::File;
using safetensors::Header;
using safetensors::Tensor;

StagingPlan plan_tensors(const Header& header, std::span<const size_t> tensors, uint64_t max_gap,
                         uint64_t alignment) {
  std::vector<Range> wanted;
  wanted.reserve(tensors.size());
  for (const size_t index : tensors) {
    if (index >= header.size())
      throw Error(Fault::argument, "[plan_tensors] no tensor " + std::to_string(index) + ": the file has " +
                                       std::to_string(header.size()));
    const Tensor& tensor = header.tensors()[index];
    wanted.push_back({header.file_offset(tensor), tensor.nbytes()});
  }
  return plan_staging(wanted, {}, max_gap, alignment);
}

void read_planned(const File& file, const Header& header, const StagingPlan& plan,
                  std::span<std::byte> destination, int threads) {
  if (plan.nbytes > destination.size())
    throw Error(Fault::argument, "[read_planned] " + file.path() + ": the tensors need " +
                                     std::to_string(plan.nbytes) + " bytes, the memory given has " +
                                     std::to_string(destination.size()));
  std::vector<ReadRequest> requests;
  requests.reserve(plan.spans.size());
  for (const Span& span : plan.spans)
    requests.push_back(
        {&file, &header, span.range.offset, span.range.nbytes, destination.data() + span.position});
  read(requests, threads);
}

}  // namespace lora_mmap::stream
