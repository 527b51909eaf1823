// The header parser: any bytes either parse to a header that obeys the format or throw Fault::header.
//
// The first byte of the input chooses how the rest becomes a file. Even: it is the file. Odd: two bytes say
// how much data there is, the others are the JSON; its length field is then always right and mutations are
// spent on what comes after it.
#include <algorithm>
#include <charconv>
#include <cstring>
#include <memory>
#include <string>

#include "base/error.h"
#include "header_content.h"
#include "require.h"
#include "safetensors/header.h"
#include "utf8_decode.h"

namespace lora_mmap::fuzz {
namespace {

using safetensors::Header;
using safetensors::Tensor;

constexpr size_t kLengthFieldNbytes = 8;

void require_utf8(std::string_view text, const char* what) {
  require(decode_utf8(text).has_value(), what, text);
}

// From the type's name: the number in it, but for BOOL.
unsigned bits_of(std::string_view dtype) {
  const size_t digit = dtype.find_first_of("0123456789");
  unsigned bits = 8;
  if (digit != dtype.npos) std::from_chars(dtype.data() + digit, dtype.data() + dtype.size(), bits);
  return bits;
}

void require_size(const Header& header, const Tensor& tensor) {
  using Wide = unsigned __int128;
  const auto shape = header.shape(tensor);
  Wide bits = bits_of(dtype_name(tensor.dtype));
  if (std::find(shape.begin(), shape.end(), 0u) != shape.end()) bits = 0;
  for (const uint64_t dim : shape) {
    if (bits == 0) break;
    bits *= dim;
    require(bits <= Wide{8} * tensor.nbytes(), "a shape takes no more than the tensor's bytes", tensor.name);
  }
  require(bits == Wide{8} * tensor.nbytes(), "a shape takes all of the tensor's bytes", tensor.name);
  require(header.element_count(tensor) * bits_of(dtype_name(tensor.dtype)) == bits, "element_count",
          tensor.name);
}

void require_tensors(const Header& header, uint64_t file_nbytes) {
  uint64_t covered = 0;
  std::string longest;
  for (size_t i = 0; i < header.size(); ++i) {
    const Tensor& tensor = header.tensors()[i];
    require(tensor.begin == covered && tensor.end >= covered, "tensors tile the data in order", tensor.name);
    covered = tensor.end;
    require(header.file_offset(tensor) == header.nbytes() + tensor.begin, "file_offset", tensor.name);
    require_size(header, tensor);
    require_utf8(tensor.name, "names are valid UTF-8");
    require(tensor.name != "__metadata__", "metadata is no tensor");
    require(header.find(tensor.name) == i, "a name finds its own tensor, so names are unique", tensor.name);
    if (tensor.name.size() > longest.size()) longest = tensor.name;
  }
  require(header.nbytes() + covered == file_nbytes, "tensors end where the file ends");
  require(!header.find(longest + "x"), "a name that is not there is not found", longest);
}

void require_metadata(const Header& header) {
  if (!header.metadata()) return;
  std::vector<std::string_view> keys;
  for (const auto& [key, value] : *header.metadata()) {
    require_utf8(key, "metadata keys are valid UTF-8");
    require_utf8(value, "metadata values are valid UTF-8");
    keys.push_back(key);
  }
  std::sort(keys.begin(), keys.end());
  require(std::adjacent_find(keys.begin(), keys.end()) == keys.end(), "metadata keys are unique");
}

// Every byte of the file has a name, which goes into error texts.
void require_places(const Header& header, uint64_t file_nbytes) {
  require(header.at(0) == "the header" && header.at(header.nbytes() - 1) == "the header",
          "the header's place");
  require(header.at(file_nbytes) == "the end", "the end's place");
  for (const Tensor& tensor : header.tensors()) {
    if (tensor.nbytes() == 0) continue;
    const uint64_t first = header.file_offset(tensor), last = first + tensor.nbytes() - 1;
    require(header.at(first) == quoted(tensor) && header.at(last) == quoted(tensor), "a tensor's place",
            tensor.name);
    require(quoted(tensor).find('\0') == std::string::npos, "no name ends an error text", tensor.name);
  }
}

// Every view must survive the header that it came from.
Header moved(std::unique_ptr<Header> header) {
  Header first(std::move(*header));
  header.reset();
  Header second = Header::parse(file_of({{{"x", "U8", {1}, 0, 1}}, {}}));
  second = std::move(first);
  return second;
}

// Nothing when it was refused.
std::unique_ptr<Header> parse(std::string_view file) {
  try {
    return std::make_unique<Header>(Header::parse(file));
  } catch (const Error& error) {
    require(error.fault() == Fault::header, "only Fault::header is thrown", error.what());
    require(std::string_view(error.what()).starts_with("Error while deserializing: "), "how errors begin",
            error.what());
    require_utf8(error.what(), "errors are valid UTF-8");  // they become a Python str
    return nullptr;
  }
}

void parse_and_check(std::string_view file) {
  std::unique_ptr<Header> parsed = parse(file);
  if (!parsed) return;
  require_tensors(*parsed, file.size());
  require_metadata(*parsed);
  require_places(*parsed, file.size());
  const HeaderContent content = content_of(*parsed);
  const Header header = moved(std::move(parsed));
  require(content_of(header) == content, "a header says the same after a move");
  for (size_t i = 0; i < header.size(); ++i)
    require(header.find(content.tensors[i].name) == i, "a name finds its tensor after a move");
  require(content_of(Header::parse(file_of(content))) == content, "another spelling parses to the same");
}

// In a block of exactly its size, so that a read beyond its end is seen. Nobody reads the data: it stays
// uninitialised.
void parse_json(std::string_view json, size_t data_nbytes) {
  const size_t file_nbytes = kLengthFieldNbytes + json.size() + data_nbytes;
  const auto file = std::make_unique_for_overwrite<char[]>(file_nbytes);
  for (size_t i = 0; i < kLengthFieldNbytes; ++i) file[i] = static_cast<char>(json.size() >> (8 * i));
  std::memcpy(file.get() + kLengthFieldNbytes, json.data(), json.size());
  parse_and_check({file.get(), file_nbytes});
}

}  // namespace
}  // namespace lora_mmap::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lora_mmap::fuzz;
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 == 0)
    parse_and_check(rest);
  else if (rest.size() >= 2)
    parse_json(rest.substr(2), data[1] | data[2] << 8);
  return 0;
}
