// A broken rule of the header on its way to the public error, which adds where the header came from.
#pragma once

#include <string>

namespace lora_mmap::safetensors {

struct Violation {
  std::string rule;    // safetensors' wording, which callers match on
  std::string detail;  // tensor, expected, actual
};

}  // namespace lora_mmap::safetensors
