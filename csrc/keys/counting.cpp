#include "keys/counting.h"

#include <array>
#include <charconv>
#include <string>

namespace lora_mmap::keys {
namespace {

// More blocks than any model has. Bounded, so that no index overflows.
constexpr size_t kLimit = 1000;

std::optional<size_t> number(std::string_view text) {
  size_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (text.empty() || error != std::errc{} || stop != end || value >= kLimit) return std::nullopt;
  return value;
}

// An index as names have it: "07" is not 7.
std::optional<size_t> index_of(std::string_view text) {
  if (text.size() > 1 && text.front() == '0') return std::nullopt;
  return number(text);
}

std::string_view written(size_t value) {
  static const std::array<std::string, kLimit> texts = [] {
    std::array<std::string, kLimit> all;
    for (size_t i = 0; i < kLimit; ++i) all[i] = std::to_string(i);
    return all;
  }();
  return texts[value];
}

// The part of `text` before the next '+', which is taken off together with it.
std::string_view next_term(std::string_view& text) {
  const size_t plus = text.find('+');
  const std::string_view term = text.substr(0, plus);
  text = plus == std::string_view::npos ? std::string_view{} : text.substr(plus + 1);
  return term;
}

}  // namespace

bool Counting::split(std::string_view index, std::string_view& high, std::string_view& low) const {
  const auto value = index_of(index);
  if (!value || *value < offset) return false;
  const size_t rest = (*value - offset) % radix;
  if (!has_low && rest != 0) return false;
  high = written((*value - offset) / radix);
  low = written(rest);
  return true;
}

std::optional<size_t> Counting::join(std::string_view high, std::string_view low) const {
  const auto most = index_of(high);
  const auto least = has_low ? index_of(low) : std::optional<size_t>(0);
  if (!most || !least || *least >= radix) return std::nullopt;
  return *most * radix + *least + offset;
}

std::optional<CountingText> CountingText::parse(std::string_view body) {
  if (body.empty() || body.back() == '+' || body.find(':') != std::string_view::npos) return std::nullopt;
  const std::string_view first = next_term(body);
  const size_t star = first.find('*');
  if (star == 0 || star == std::string_view::npos) return std::nullopt;
  const auto radix = number(first.substr(star + 1));
  if (!radix || *radix < 2) return std::nullopt;
  CountingText text{first.substr(0, star), {}, {*radix, 0, false}};
  std::string_view term = next_term(body);
  if (!term.empty() && !number(term)) {
    text.low = term;
    text.counting.has_low = true;
    term = next_term(body);
  }
  if (!term.empty()) {
    const auto offset = number(term);
    if (!offset) return std::nullopt;
    text.counting.offset = *offset;
  }
  return body.empty() ? std::optional(text) : std::nullopt;
}

}  // namespace lora_mmap::keys
