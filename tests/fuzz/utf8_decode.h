// UTF-8 once more, written from RFC 3629's table rather than from csrc/safetensors/utf8.cpp.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace lora_mmap::fuzz {

// The code points of `text`; nothing when it is not valid UTF-8.
std::optional<std::vector<uint32_t>> decode_utf8(std::string_view text);

}  // namespace lora_mmap::fuzz
