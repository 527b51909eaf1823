#include "safetensors/utf8.h"

#include <cstring>

namespace lora_mmap::safetensors {
namespace {

// Bytes in the sequence that starts at text[0], or 0 when it is not a valid one.
size_t sequence_length(std::string_view text) {
  const auto at = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const auto continues = [&](size_t i) { return (at(i) & 0xC0u) == 0x80u; };
  const unsigned lead = at(0);
  const unsigned second = at(1);
  if (lead < 0x80) return 1;
  if (lead < 0xC2) return 0;
  if (lead < 0xE0) return continues(1) ? 2 : 0;
  if (lead < 0xF0) {
    const bool overlong = lead == 0xE0 && second < 0xA0;
    const bool surrogate = lead == 0xED && second >= 0xA0;
    return continues(1) && continues(2) && !overlong && !surrogate ? 3 : 0;
  }
  if (lead > 0xF4) return 0;
  const bool overlong = lead == 0xF0 && second < 0x90;
  const bool too_large = lead == 0xF4 && second >= 0x90;
  return continues(1) && continues(2) && continues(3) && !overlong && !too_large ? 4 : 0;
}

size_t ascii_prefix(std::string_view text) {
  size_t i = 0;
  for (; i + sizeof(uint64_t) <= text.size(); i += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, text.data() + i, sizeof(word));
    if (word & 0x8080808080808080u) break;
  }
  while (i < text.size() && static_cast<unsigned char>(text[i]) < 0x80) ++i;
  return i;
}

}  // namespace

size_t valid_utf8_prefix(std::string_view text) {
  size_t i = 0;
  for (;;) {
    i += ascii_prefix(text.substr(i));
    if (i == text.size()) return i;
    const size_t length = sequence_length(text.substr(i));
    if (length == 0) return i;
    i += length;
  }
}

char* encode_utf8(uint32_t code_point, char* out) {
  const auto put = [&out](uint32_t byte) { *out++ = static_cast<char>(byte); };
  const auto put_tail = [&](unsigned shift) { put(0x80u | ((code_point >> shift) & 0x3Fu)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0u | (code_point >> 6));
    put_tail(0);
  } else if (code_point < 0x10000) {
    put(0xE0u | (code_point >> 12));
    put_tail(6);
    put_tail(0);
  } else {
    put(0xF0u | (code_point >> 18));
    put_tail(12);
    put_tail(6);
    put_tail(0);
  }
  return out;
}

}  // namespace lora_mmap::safetensors
