#include "safetensors/json.h"

#include <cstring>

#include "safetensors/json_number.h"
#include "safetensors/utf8.h"

namespace lora_mmap::safetensors {
namespace {

constexpr int kMaxDepth = 127;

bool ends_plain_text(unsigned char c) {
  return c == '"' || c == '\\' || c < 0x20;
}

// Eight bytes at a time: non-zero when one of them ends a run of plain string characters.
uint64_t marks_end_of_plain_text(uint64_t word) {
  constexpr uint64_t kOnes = 0x0101010101010101u;
  constexpr uint64_t kHighs = 0x8080808080808080u;
  const auto has_zero = [](uint64_t x) { return (x - kOnes) & ~x & kHighs; };
  const uint64_t control = (word - kOnes * 0x20u) & ~word & kHighs;
  return control | has_zero(word ^ (kOnes * '"')) | has_zero(word ^ (kOnes * '\\'));
}

char* end_of_plain_text(char* at, const char* end) {
  for (; end - at >= 8; at += 8) {
    uint64_t word;
    std::memcpy(&word, at, sizeof(word));
    if (marks_end_of_plain_text(word)) break;
  }
  while (at != end && !ends_plain_text(static_cast<unsigned char>(*at))) ++at;
  return at;
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

}  // namespace

void JsonCursor::fail(const std::string& reason) const {
  throw JsonError(reason + " at byte " + std::to_string(at_ - begin_));
}

void JsonCursor::skip_space() {
  while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) ++at_;
}

char JsonCursor::peek() {
  skip_space();
  return at_ == end_ ? '\0' : *at_;
}

void JsonCursor::expect(char wanted) {
  if (peek() != wanted) fail(std::string("expected `") + wanted + "`");
  ++at_;
}

void JsonCursor::enter(char bracket) {
  expect(bracket);
  if (++depth_ > kMaxDepth) fail("recursion limit exceeded");
  fresh_ = true;
}

bool JsonCursor::leave(char bracket) {
  if (peek() != bracket) return false;
  ++at_;
  --depth_;
  fresh_ = false;
  return true;
}

// Steps to the next item of the innermost container, or out of it.
bool JsonCursor::next(char bracket) {
  if (leave(bracket)) return false;
  if (!fresh_) {
    if (peek() != ',') fail(std::string("expected `,` or `") + bracket + "`");
    ++at_;
  }
  fresh_ = false;
  return true;
}

void JsonCursor::begin_object() {
  enter('{');
}

void JsonCursor::begin_array() {
  enter('[');
}

bool JsonCursor::next_member(std::string_view& key) {
  if (!next('}')) return false;
  if (peek() != '"') fail("key must be a string");
  key = string();
  expect(':');
  return true;
}

bool JsonCursor::next_element() {
  return next(']');
}

std::string_view JsonCursor::string() {
  if (peek() != '"') fail("expected a string");
  char* const start = ++at_;
  at_ = end_of_plain_text(at_, end_);
  if (at_ != end_ && *at_ == '"') return {start, static_cast<size_t>(at_++ - start)};
  return decode_escapes(start);
}

std::string_view JsonCursor::decode_escapes(char* start) {
  char* out = at_;
  for (;;) {
    if (at_ == end_) fail("end of the header within a string");
    if (*at_ == '"') break;
    if (*at_ != '\\') fail("control character within a string");
    ++at_;
    out = decode_escape(out);
    char* const plain = at_;
    at_ = end_of_plain_text(at_, end_);
    std::memmove(out, plain, static_cast<size_t>(at_ - plain));
    out += at_ - plain;
  }
  ++at_;
  return {start, static_cast<size_t>(out - start)};
}

char* JsonCursor::decode_escape(char* out) {
  constexpr std::string_view kNames = "\"\\/bfnrt";
  constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
  if (at_ == end_) fail("end of the header within a string");
  if (*at_ != 'u') {
    const size_t which = kNames.find(*at_);
    if (which == std::string_view::npos) fail("invalid escape");
    ++at_;
    *out = kMeanings[which];
    return out + 1;
  }
  ++at_;
  uint32_t code_point = hex4();
  if (code_point >= 0xDC00 && code_point < 0xE000) fail("lone surrogate in a \\u escape");
  if (code_point >= 0xD800 && code_point < 0xDC00) {
    if (end_ - at_ < 2 || at_[0] != '\\' || at_[1] != 'u') fail("lone surrogate in a \\u escape");
    at_ += 2;
    const uint32_t low = hex4();
    if (low < 0xDC00 || low >= 0xE000) fail("lone surrogate in a \\u escape");
    code_point = 0x10000u + ((code_point - 0xD800u) << 10) + (low - 0xDC00u);
  }
  return encode_utf8(code_point, out);
}

uint32_t JsonCursor::hex4() {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i, ++at_) {
    if (at_ == end_) fail("end of the header within a \\u escape");
    const char c = *at_;
    const char lower = static_cast<char>(c | 0x20);
    if (is_digit(c))
      value = value * 16 + static_cast<uint32_t>(c - '0');
    else if (lower >= 'a' && lower <= 'f')
      value = value * 16 + static_cast<uint32_t>(lower - 'a' + 10);
    else
      fail("invalid \\u escape");
  }
  return value;
}

uint64_t JsonCursor::u64() {
  if (!is_digit(peek())) fail("expected an unsigned integer");
  const char* const start = at_;
  uint64_t value = 0;
  for (; at_ != end_ && is_digit(*at_); ++at_) {
    const auto digit = static_cast<uint64_t>(*at_ - '0');
    if (value > (UINT64_MAX - digit) / 10) fail("integer beyond 64 bits");
    value = value * 10 + digit;
  }
  if (*start == '0' && at_ - start > 1) fail("invalid number: leading zero");
  if (at_ != end_ && (*at_ == '.' || *at_ == 'e' || *at_ == 'E')) fail("expected an unsigned integer");
  return value;
}

void JsonCursor::literal(std::string_view word) {
  if (static_cast<size_t>(end_ - at_) < word.size() || std::memcmp(at_, word.data(), word.size()) != 0)
    fail("expected a value");
  at_ += word.size();
}

void JsonCursor::null() {
  if (peek() != 'n') fail("expected null");
  literal("null");
}

size_t JsonCursor::digits() {
  const char* const start = at_;
  while (at_ != end_ && is_digit(*at_)) ++at_;
  if (at_ == start) fail("invalid number");
  return static_cast<size_t>(at_ - start);
}

void JsonCursor::skip_number() {
  const char* const start = at_;
  if (*at_ == '-') ++at_;
  const char* const whole = at_;
  if (digits() > 1 && *whole == '0') fail("invalid number: leading zero");
  if (at_ != end_ && *at_ == '.') {
    ++at_;
    digits();
  }
  if (at_ != end_ && (*at_ == 'e' || *at_ == 'E')) {
    ++at_;
    if (at_ != end_ && (*at_ == '+' || *at_ == '-')) ++at_;
    digits();
  }
  if (exceeds_double({start, static_cast<size_t>(at_ - start)})) fail("number out of range");
}

void JsonCursor::skip_value() {
  std::string_view key;
  const char first = peek();
  switch (first) {
    case '{':
      begin_object();
      while (next_member(key)) skip_value();
      return;
    case '[':
      begin_array();
      while (next_element()) skip_value();
      return;
    case '"':
      string();
      return;
    case 't':
      return literal("true");
    case 'f':
      return literal("false");
    case 'n':
      return literal("null");
    default:
      if (first != '-' && !is_digit(first)) fail("expected a value");
      skip_number();
  }
}

void JsonCursor::finish() {
  skip_space();
  if (at_ != end_) fail("trailing characters");
}

}  // namespace lora_mmap::safetensors
