#include "header_content.h"

#include "require.h"
#include "utf8_decode.h"

namespace lora_mmap::fuzz {
namespace {

void append_unit(std::string& json, uint32_t utf16_unit) {
  char text[8];
  std::snprintf(text, sizeof(text), "\\u%04x", utf16_unit);
  json += text;
}

void append_string(std::string& json, const std::string& text) {
  const auto code_points = decode_utf8(text);
  require(code_points.has_value(), "strings are valid UTF-8", text);
  json += '"';
  for (const uint32_t c : *code_points) {
    if (c >= 0x20 && c < 0x7F && c != '"' && c != '\\') {
      json += static_cast<char>(c);
    } else if (c < 0x10000) {
      append_unit(json, c);
    } else {
      append_unit(json, 0xD800 + ((c - 0x10000) >> 10));
      append_unit(json, 0xDC00 + ((c - 0x10000) & 0x3FF));
    }
  }
  json += '"';
}

void append_list(std::string& json, const std::vector<uint64_t>& numbers) {
  json += '[';
  for (const uint64_t number : numbers) {
    if (json.back() != '[') json += ',';
    json += std::to_string(number);
  }
  json += ']';
}

void append_tensor(std::string& json, const TensorContent& tensor, bool as_list) {
  append_string(json, tensor.name);
  json += as_list ? ":[" : ":{\"dtype\":";
  append_string(json, tensor.dtype);
  json += as_list ? "," : ",\"shape\":";
  append_list(json, tensor.shape);
  json += as_list ? "," : ",\"data_offsets\":";
  append_list(json, {tensor.begin, tensor.end});
  json += as_list ? ']' : '}';
}

void append_metadata(std::string& json, const HeaderContent& content) {
  json += "\"__metadata__\":";
  if (!content.metadata) {
    json += "null";
    return;
  }
  json += '{';
  for (const auto& [key, value] : *content.metadata) {
    if (json.back() != '{') json += ',';
    append_string(json, key);
    json += ':';
    append_string(json, value);
  }
  json += '}';
}

}  // namespace

HeaderContent content_of(const safetensors::Header& header) {
  HeaderContent content;
  for (const safetensors::Tensor& tensor : header.tensors()) {
    const auto shape = header.shape(tensor);
    content.tensors.push_back({std::string(tensor.name),
                               std::string(dtype_name(tensor.dtype)),
                               {shape.begin(), shape.end()},
                               tensor.begin,
                               tensor.end});
  }
  if (!header.metadata()) return content;
  content.metadata.emplace();
  for (const auto& [key, value] : *header.metadata()) content.metadata->emplace_back(key, value);
  return content;
}

std::string file_of(const HeaderContent& content) {
  std::string json = "{";
  append_metadata(json, content);
  bool as_list = false;
  for (const TensorContent& tensor : content.tensors) {
    json += ',';
    append_tensor(json, tensor, as_list);
    as_list = !as_list;
  }
  json += '}';
  std::string file;
  for (unsigned i = 0; i < 8; ++i) file += static_cast<char>(json.size() >> (8 * i));
  file += json;
  if (!content.tensors.empty()) file.append(content.tensors.back().end, '\0');
  return file;
}

}  // namespace lora_mmap::fuzz
