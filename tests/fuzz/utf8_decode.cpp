#include "utf8_decode.h"

namespace lora_mmap::fuzz {
namespace {

constexpr uint32_t kLeast[] = {0, 0x80, 0x800, 0x10000};  // that needs 0, 1, 2, 3 bytes after the first

int tail_nbytes(unsigned char lead) {
  if (lead < 0x80) return 0;
  if ((lead & 0xE0) == 0xC0) return 1;
  if ((lead & 0xF0) == 0xE0) return 2;
  if ((lead & 0xF8) == 0xF0) return 3;
  return -1;
}

}  // namespace

std::optional<std::vector<uint32_t>> decode_utf8(std::string_view text) {
  std::vector<uint32_t> code_points;
  code_points.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const auto lead = static_cast<unsigned char>(text[at++]);
    const int tail = tail_nbytes(lead);
    if (tail < 0) return std::nullopt;
    uint32_t value = tail == 0 ? lead : lead & (0x3Fu >> tail);
    for (int i = 0; i < tail; ++i, ++at) {
      if (at == text.size()) return std::nullopt;
      const auto next = static_cast<unsigned char>(text[at]);
      if ((next & 0xC0) != 0x80) return std::nullopt;
      value = value << 6 | (next & 0x3Fu);
    }
    const bool surrogate = value >= 0xD800 && value < 0xE000;
    if (value < kLeast[tail] || surrogate || value > 0x10FFFF) return std::nullopt;
    code_points.push_back(value);
  }
  return code_points;
}

}  // namespace lora_mmap::fuzz
