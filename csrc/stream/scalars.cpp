#include "stream/scalars.h"

#include <string>

#include "base/error.h"
#include "stream/tensors.h"

namespace lora_mmap::stream {
namespace {

using safetensors::File;
using safetensors::Header;
using safetensors::Tensor;

bool is_real(DType dtype) {
  return dtype != DType::C64 && dtype_bits(dtype) >= 8;
}

void require_scalar(const File& file, const Header& header, const Tensor& tensor) {
  const auto refuse = [&](const std::string& why) {
    throw Error(Fault::adapter, "[read_scalars] " + file.path() + ": " + quoted(tensor) + ": " + why);
  };
  if (!is_real(tensor.dtype)) refuse("expected real numbers, got " + std::string(dtype_name(tensor.dtype)));
  if (header.element_count(tensor) != 1)
    refuse("expected one element, got " + std::to_string(header.element_count(tensor)));
}

}  // namespace

std::vector<double> read_scalars(const File& file, const Header& header, std::span<const size_t> tensors) {
  const StagingPlan plan = plan_tensors(header, tensors, 0, 1);
  for (const size_t index : tensors) require_scalar(file, header, header.tensors()[index]);
  std::vector<std::byte> staging(plan.nbytes);
  read_planned(file, header, plan, staging);

  std::vector<double> values;
  values.reserve(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i)
    values.push_back(
        element_to_double(header.tensors()[tensors[i]].dtype, staging.data() + plan.positions[i], 0));
  return values;
}

}  // namespace lora_mmap::stream
