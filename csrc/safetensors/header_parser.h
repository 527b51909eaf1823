// From the bytes of a header to a Header.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "safetensors/header.h"
#include "safetensors/json.h"

namespace lora_mmap::safetensors {

// Used once, by Header. Throws Violation.
class HeaderParser {
 public:
  // Takes the JSON's bytes over: the header's strings are views into them.
  static Header parse(std::unique_ptr<char[]> json, uint64_t json_nbytes, uint64_t file_nbytes);

 private:
  HeaderParser(std::unique_ptr<char[]> json, uint64_t json_nbytes);

  void parse_document();
  void parse_metadata();
  void parse_tensor(std::string_view name);
  void parse_tensor_object(Tensor& tensor);
  void parse_tensor_list(Tensor& tensor);
  DType parse_dtype();
  void parse_shape(Tensor& tensor);
  void parse_offsets(Tensor& tensor);
  void keep(const Tensor& tensor);
  void sort_by_offset();

  Header header_;
  JsonCursor cursor_;
  std::string_view current_;  // the name of the tensor that is being parsed, for errors
};

}  // namespace lora_mmap::safetensors
