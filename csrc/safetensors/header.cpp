#include "safetensors/header.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "safetensors/counters.h"
#include "safetensors/file.h"
#include "safetensors/header_parser.h"
#include "safetensors/header_rules.h"
#include "safetensors/violation.h"

namespace lora_mmap::safetensors {
namespace {

// Names may hold NUL bytes, which would end what() early.
std::string without_nul(std::string text) {
  for (size_t at = text.find('\0'); at != std::string::npos; at = text.find('\0', at))
    text.replace(at, 1, "\\0");
  return text;
}

[[noreturn]] void reject(const char* what, const std::string& source, const Violation& violation) {
  std::string text = std::string(what) + ": " + violation.rule + ": " + source;
  if (!violation.detail.empty()) text += ": " + violation.detail;
  throw Error(Fault::header, without_nul(std::move(text)));
}

}  // namespace

std::string quoted(const Tensor& tensor) {
  return without_nul("tensor `" + std::string(tensor.name) + "`");
}

Header Header::read(const File& file) {
  try {
    require_length_field(file.size());
    unsigned char length_field[kLengthFieldNbytes];
    file.read_exact(0, sizeof(length_field), length_field, Named("the header's length"));
    const uint64_t json_nbytes = checked_json_nbytes(length_field, file.size());
    auto json = std::make_unique_for_overwrite<char[]>(json_nbytes);
    file.read_exact(kLengthFieldNbytes, json_nbytes, json.get(), Named("the header"));
    Header header = HeaderParser::parse(std::move(json), json_nbytes, file.size());
    count(counters().headers_parsed);
    return header;
  } catch (const Violation& violation) {
    reject("Error while deserializing header", file.path(), violation);
  }
}

Header Header::parse(std::string_view file_bytes) {
  try {
    require_length_field(file_bytes.size());
    const auto* const length_field = reinterpret_cast<const unsigned char*>(file_bytes.data());
    const uint64_t json_nbytes = checked_json_nbytes(length_field, file_bytes.size());
    auto json = std::make_unique_for_overwrite<char[]>(json_nbytes);
    std::memcpy(json.get(), file_bytes.data() + kLengthFieldNbytes, json_nbytes);
    Header header = HeaderParser::parse(std::move(json), json_nbytes, file_bytes.size());
    count(counters().headers_parsed);
    return header;
  } catch (const Violation& violation) {
    reject("Error while deserializing", "bytes in memory", violation);
  }
}

uint64_t Header::element_count(const Tensor& tensor) const {
  uint64_t count = 1;
  for (const uint64_t dim : shape(tensor)) count *= dim;
  return count;
}

std::string Header::at(uint64_t file_offset) const {
  if (file_offset < nbytes_) return "the header";
  const uint64_t offset = file_offset - nbytes_;
  const auto tensor = std::upper_bound(tensors_.begin(), tensors_.end(), offset,
                                       [](uint64_t at, const Tensor& other) { return at < other.end; });
  return tensor == tensors_.end() ? "the end" : quoted(*tensor);
}

std::optional<size_t> Header::find(std::string_view name) const {
  const uint32_t place = places_.find(name, [&](uint32_t at) { return tensors_[at].name; });
  if (place == NameTable::kAbsent) return std::nullopt;
  return place;
}

}  // namespace lora_mmap::safetensors
