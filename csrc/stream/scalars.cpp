#include "stream/scalars.h"

#include <string>

#include "base/error.h"
#include "stream/ranges.h"
#include "stream/reader.h"

namespace lora_mmap::stream {
namespace {

using safetensors::File;
using safetensors::Header;
using safetensors::Tensor;

bool is_real(DType dtype) {
  return dtype != DType::C64 && dtype_bits(dtype) >= 8;
}

Range range_of_scalar(const File& file, const Header& header, size_t index) {
  const auto refuse = [&](const std::string& why) {
    throw Error(Fault::adapter, "[read_scalars] " + file.path() + ": " + why);
  };
  if (index >= header.size())
    refuse("no tensor " + std::to_string(index) + ": the file has " + std::to_string(header.size()));
  const Tensor& tensor = header.tensors()[index];
  const auto named = [&] { return quoted(tensor) + ": "; };
  if (!is_real(tensor.dtype))
    refuse(named() + "expected real numbers, got " + std::string(dtype_name(tensor.dtype)));
  if (header.element_count(tensor) != 1)
    refuse(named() + "expected one element, got " + std::to_string(header.element_count(tensor)));
  return {header.file_offset(tensor), tensor.nbytes()};
}

}  // namespace

std::vector<double> read_scalars(const File& file, const Header& header, std::span<const size_t> tensors) {
  std::vector<Range> wanted;
  wanted.reserve(tensors.size());
  for (const size_t index : tensors) wanted.push_back(range_of_scalar(file, header, index));

  const StagingPlan plan = plan_staging(wanted, {}, 0, 1);
  std::vector<char> staging(plan.nbytes);
  std::vector<ReadRequest> requests;
  requests.reserve(plan.spans.size());
  for (const Span& span : plan.spans)
    requests.push_back(
        {&file, &header, span.range.offset, span.range.nbytes, staging.data() + span.position});
  read(requests);

  std::vector<double> values;
  values.reserve(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i)
    values.push_back(
        element_to_double(header.tensors()[tensors[i]].dtype, staging.data() + plan.positions[i], 0));
  return values;
}

}  // namespace lora_mmap::stream
