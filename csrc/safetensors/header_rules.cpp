#include "safetensors/header_rules.h"

#include <string>

#include "safetensors/header.h"
#include "safetensors/violation.h"

namespace lora_mmap::safetensors {
namespace {

std::string quoted(std::string_view name) {
  return "`" + std::string(name) + "`";
}

std::string describe(const Header& header, const Tensor& tensor) {
  std::string text = "tensor " + quoted(tensor.name) + ": " + std::string(dtype_name(tensor.dtype)) + " [";
  for (const uint64_t dim : header.shape(tensor)) {
    if (text.back() != '[') text += ", ";
    text += std::to_string(dim);
  }
  return text + "]";
}

uint64_t required_nbytes(const Header& header, const Tensor& tensor) {
  uint64_t bits = 1;
  const auto multiply = [&](uint64_t factor) {
    if (__builtin_mul_overflow(bits, factor, &bits))
      throw Violation{"overflow computing buffer size from shape and/or element type",
                      describe(header, tensor)};
  };
  for (const uint64_t dim : header.shape(tensor)) multiply(dim);
  multiply(dtype_bits(tensor.dtype));
  if (bits % 8 != 0)
    throw Violation{
        "The slice is slicing for subbytes dtypes, and the slice does not end up at a byte boundary, "
        "this is invalid.",
        describe(header, tensor) + " is not a whole number of bytes"};
  return bits / 8;
}

}  // namespace

void require_length_field(uint64_t file_nbytes) {
  if (file_nbytes < kLengthFieldNbytes)
    throw Violation{"header too small (HeaderTooSmall)",
                    "expected at least 8 bytes, got " + std::to_string(file_nbytes)};
}

uint64_t checked_json_nbytes(const unsigned char* length_field, uint64_t file_nbytes) {
  uint64_t nbytes = 0;
  for (uint64_t i = 0; i < kLengthFieldNbytes; ++i) nbytes |= uint64_t{length_field[i]} << (8 * i);
  if (nbytes > kMaxJsonNbytes)
    throw Violation{
        "header too large (HeaderTooLarge)",
        "expected at most " + std::to_string(kMaxJsonNbytes) + " bytes, got " + std::to_string(nbytes)};
  if (nbytes > file_nbytes - kLengthFieldNbytes)
    throw Violation{"invalid header length (InvalidHeaderLength)",
                    "expected " + std::to_string(nbytes) + " bytes after the length field, got " +
                        std::to_string(file_nbytes - kLengthFieldNbytes)};
  return nbytes;
}

void check_tiling(const Header& header, uint64_t data_nbytes) {
  uint64_t covered = 0;
  for (const Tensor& tensor : header.tensors()) {
    if (tensor.begin != covered || tensor.end < tensor.begin)
      throw Violation{"invalid offset for tensor " + quoted(tensor.name),
                      "expected it to begin at " + std::to_string(covered) + " and not to end before, got [" +
                          std::to_string(tensor.begin) + ", " + std::to_string(tensor.end) + "]"};
    covered = tensor.end;
    const uint64_t required = required_nbytes(header, tensor);
    if (required != tensor.nbytes())
      throw Violation{"invalid shape, data type, or offset for tensor",
                      describe(header, tensor) + ": expected " + std::to_string(required) + " bytes, got " +
                          std::to_string(tensor.nbytes())};
  }
  if (covered != data_nbytes)
    throw Violation{"incomplete metadata, file not fully covered (MetadataIncompleteBuffer)",
                    "expected " + std::to_string(covered) + " bytes of tensors, the file has " +
                        std::to_string(data_nbytes)};
}

}  // namespace lora_mmap::safetensors
