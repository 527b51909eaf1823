// What a header says, in strings and numbers of its own, and back to the bytes of a file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "safetensors/header.h"

namespace lora_mmap::fuzz {

struct TensorContent {
  std::string name;
  std::string dtype;
  std::vector<uint64_t> shape;
  uint64_t begin = 0, end = 0;

  bool operator==(const TensorContent&) const = default;
};

struct HeaderContent {
  std::vector<TensorContent> tensors;
  std::optional<std::vector<std::pair<std::string, std::string>>> metadata;

  bool operator==(const HeaderContent&) const = default;
};

HeaderContent content_of(const safetensors::Header& header);

// A file with this content, spelled otherwise than most are: every string escaped wherever it is not plain
// ASCII, every other tensor in the form of a list, the data all zero.
std::string file_of(const HeaderContent& content);

}  // namespace lora_mmap::fuzz
