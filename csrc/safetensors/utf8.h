// UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace lora_mmap::safetensors {

// Length of the longest prefix that is valid UTF-8: text.size() when all of it is.
size_t valid_utf8_prefix(std::string_view text);

// Writes a code point (a Unicode scalar value) as 1 to 4 bytes and returns the position after them.
char* encode_utf8(uint32_t code_point, char* out);

}  // namespace lora_mmap::safetensors
