#include "safetensors/json_number.h"

#include <algorithm>
#include <cstdint>
#include <string>

namespace lora_mmap::safetensors {
namespace {

constexpr std::string_view kLargestDigits = "17976931348623157";  // of the largest double, ...e308
constexpr int64_t kLargestExponent = 308;

int64_t saturated_exponent(std::string_view text) {
  constexpr int64_t kLimit = 1'000'000'000'000;  // longer than any header has digits
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  int64_t value = 0;
  for (const char c : text) value = std::min(value * 10 + (c - '0'), kLimit);
  return negative ? -value : value;
}

}  // namespace

bool exceeds_double(std::string_view number) {
  const size_t e = std::min(number.find_first_of("eE"), number.size());
  std::string_view mantissa = number.substr(0, e);
  if (mantissa.starts_with('-')) mantissa.remove_prefix(1);
  const size_t point = std::min(mantissa.find('.'), mantissa.size());
  const size_t first = mantissa.find_first_of("123456789");
  if (first == std::string_view::npos) return false;

  // The power of ten of the first significant digit.
  const int64_t place = static_cast<int64_t>(point) - static_cast<int64_t>(first) - (first < point ? 1 : 0);
  const int64_t exponent = place + (e < number.size() ? saturated_exponent(number.substr(e + 1)) : 0);
  if (exponent != kLargestExponent) return exponent > kLargestExponent;

  std::string leading;
  for (const char c : mantissa.substr(first)) {
    if (leading.size() == kLargestDigits.size()) break;
    if (c != '.') leading += c;
  }
  return leading > kLargestDigits;
}

}  // namespace lora_mmap::safetensors
