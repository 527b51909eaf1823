// A strict JSON reader that visits a document once, from left to right, without building a tree.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace lora_mmap::safetensors {

// The text is not the JSON that was asked for. what() says why and at which byte.
class JsonError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Reads [begin, end), which must be valid UTF-8, stays the caller's and must outlive every string handed out:
// strings are views into it. A string with escapes is decoded in place (the result is never longer), so the
// buffer is changed. Every function throws JsonError on anything else than RFC 8259 or another type than
// asked for; the cursor is of no use after that. RFC 8259 is narrowed as serde_json does: at most 127 levels
// of nesting, no lone surrogates, no number beyond the range of a double.
class JsonCursor {
 public:
  JsonCursor(char* begin, char* end) : begin_(begin), at_(begin), end_(end) {}

  // First character of the next value, or '\0' at the end.
  char peek();

  // begin_object(); while (next_member(key)) { read or skip one value }
  void begin_object();
  bool next_member(std::string_view& key);

  // begin_array(); while (next_element()) { read or skip one value }
  void begin_array();
  bool next_element();

  std::string_view string();
  uint64_t u64();  // digits only: no sign, fraction, exponent or leading zero; at most 2^64 - 1
  void null();
  void skip_value();  // any value, fully validated
  void finish();      // only white space may follow

  [[noreturn]] void fail(const std::string& reason) const;

 private:
  void skip_space();
  void expect(char wanted);
  void enter(char bracket);
  bool leave(char bracket);
  bool next(char bracket);
  void literal(std::string_view word);
  void skip_number();
  std::string_view decode_escapes(char* start);
  char* decode_escape(char* out);
  uint32_t hex4();
  size_t digits();

  char* begin_;
  char* at_;
  char* end_;
  int depth_ = 0;
  bool fresh_ = false;  // just inside a bracket: neither a value nor a comma has been seen
};

}  // namespace lora_mmap::safetensors
