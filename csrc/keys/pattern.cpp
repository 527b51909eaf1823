#include "keys/pattern.h"

#include <algorithm>

#include "base/error.h"

namespace lora_mmap::keys {
namespace {

constexpr size_t kMaxBranches = 1024;

[[noreturn]] void fail(std::string_view pattern, const std::string& why) {
  throw Error(Fault::pattern, "[register_family] pattern '" + std::string(pattern) + "': " + why);
}

// Multiplies the branches out while reading the text from left to right.
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text), branches_(1) {}

  void run() {
    while (at_ < text_.size()) step(branches_);
    for (const Branch& branch : branches_) check(branch);
  }

  std::vector<std::string> captures;
  std::vector<Branch> take() { return std::move(branches_); }

 private:
  void step(std::vector<Branch>& branches) {
    switch (text_[at_]) {
      case '{':
        return capture(branches);
      case '[':
        return optional(branches);
      case '}':
      case ']':
        fail(text_, std::string("'") + text_[at_] + "' closes nothing");
      default:
        append_text(branches, text_.substr(at_++, 1));
    }
  }

  void optional(std::vector<Branch>& branches) {
    if (in_optional_) fail(text_, "[...] does not nest");
    in_optional_ = true;
    ++at_;
    std::vector<Branch> with = branches;
    while (at_ < text_.size() && text_[at_] != ']') step(with);
    if (at_ == text_.size()) fail(text_, "'[' is never closed");
    ++at_;
    in_optional_ = false;
    require_few(branches.size() + with.size());
    branches.insert(branches.end(), std::make_move_iterator(with.begin()),
                    std::make_move_iterator(with.end()));
  }

  void capture(std::vector<Branch>& branches) {
    const size_t close = text_.find('}', at_);
    if (close == std::string_view::npos) fail(text_, "'{' is never closed");
    const std::string_view body = text_.substr(at_ + 1, close - at_ - 1);
    at_ = close + 1;
    const size_t colon = body.find(':');
    if (colon == std::string_view::npos && body.find('*') != std::string_view::npos)
      return counters(branches, body);
    const size_t index = name_capture(body.substr(0, colon));
    if (colon == std::string_view::npos) return append_token(branches, {Token::Kind::digits, "", index});
    const std::string_view kind = body.substr(colon + 1);
    if (kind == "*") return append_token(branches, {Token::Kind::segment, "", index});
    choice(branches, kind, index);
  }

  void counters(std::vector<Branch>& branches, std::string_view body) {
    const auto formula = CountingText::parse(body);
    if (!formula) fail(text_, "'" + std::string(body) + "' is no index of two counters, as in {i*3+j+1}");
    const size_t high = name_capture(formula->high);
    if (formula->counting.has_low) name_capture(formula->low);
    append_token(branches, {Token::Kind::digits, "", high, formula->counting});
  }

  void choice(std::vector<Branch>& branches, std::string_view options, size_t index) {
    require_few(branches.size() * (1 + std::count(options.begin(), options.end(), '|')));
    std::vector<Branch> all;
    for (size_t begin = 0; begin <= options.size();) {
      const size_t end = std::min(options.find('|', begin), options.size());
      std::vector<Branch> one = branches;
      for (Branch& branch : one) branch.chosen.emplace_back(index, options.substr(begin, end - begin));
      append_text(one, options.substr(begin, end - begin));
      all.insert(all.end(), std::make_move_iterator(one.begin()), std::make_move_iterator(one.end()));
      begin = end + 1;
    }
    branches = std::move(all);
  }

  void require_few(size_t branches) const {
    if (branches > kMaxBranches)
      fail(text_,
           "its choices and optional parts make more than " + std::to_string(kMaxBranches) + " branches");
  }

  size_t name_capture(std::string_view name) {
    if (name.empty()) fail(text_, "a capture needs a name");
    if (std::find(captures.begin(), captures.end(), name) != captures.end())
      fail(text_, "capture '" + std::string(name) + "' appears twice");
    captures.emplace_back(name);
    return captures.size() - 1;
  }

  static void append_token(std::vector<Branch>& branches, const Token& token) {
    for (Branch& branch : branches) branch.tokens.push_back(token);
  }

  static void append_text(std::vector<Branch>& branches, std::string_view text) {
    if (text.empty()) return;
    for (Branch& branch : branches) {
      if (branch.tokens.empty() || branch.tokens.back().kind != Token::Kind::text)
        branch.tokens.push_back({Token::Kind::text, "", 0});
      branch.tokens.back().text += text;
    }
  }

  // What makes matching deterministic: a capture cannot swallow the beginning of what follows it.
  void check(const Branch& branch) const {
    if (branch.tokens.empty()) fail(text_, "it matches the empty text");
    for (size_t i = 0; i + 1 < branch.tokens.size(); ++i) {
      const Token& token = branch.tokens[i];
      if (token.kind == Token::Kind::text) continue;
      const Token& next = branch.tokens[i + 1];
      if (next.kind != Token::Kind::text) fail(text_, "two captures stand side by side");
      if (token.kind == Token::Kind::digits && is_digit(next.text[0]))
        fail(text_, "a digit follows an index");
      if (token.kind == Token::Kind::segment && next.text[0] != '.') fail(text_, "a segment must end at '.'");
    }
  }

  std::string_view text_;
  size_t at_ = 0;
  bool in_optional_ = false;
  std::vector<Branch> branches_;
};

bool same(char pattern, char key, Separators separators) {
  return pattern == key || (separators == Separators::either && pattern == '.' && key == '_');
}

// Consumes one token at `at`; false when it does not match there.
bool consume(const Token& token, std::string_view key, Separators separators, size_t& at) {
  const size_t begin = at;
  switch (token.kind) {
    case Token::Kind::text:
      if (key.size() - at < token.text.size()) return false;
      for (const char c : token.text)
        if (!same(c, key[at++], separators)) return false;
      return true;
    case Token::Kind::digits:
      while (at < key.size() && is_digit(key[at])) ++at;
      return at > begin;
    case Token::Kind::segment:
      while (at < key.size() && key[at] != '.') ++at;
      return at > begin;
  }
  return false;
}

// What a token captured; false for an index that its counters cannot make.
bool keep(const Token& token, std::string_view text, std::vector<std::string_view>& values) {
  if (token.kind == Token::Kind::text) return true;
  if (!token.counting) {
    values[token.capture] = text;
    return true;
  }
  std::string_view unused;
  return token.counting->split(text, values[token.capture],
                               token.counting->has_low ? values[token.capture + 1] : unused);
}

}  // namespace

Pattern Pattern::parse(std::string_view text) {
  Parser parser(text);
  parser.run();
  Pattern pattern;
  pattern.text_ = text;
  pattern.captures_ = std::move(parser.captures);
  pattern.branches_ = parser.take();
  return pattern;
}

bool Pattern::has_counting() const {
  const auto counts = [](const Token& token) { return token.counting.has_value(); };
  return std::ranges::any_of(
      branches_, [&](const Branch& branch) { return std::ranges::any_of(branch.tokens, counts); });
}

bool Pattern::match(std::string_view key, Separators separators,
                    std::vector<std::string_view>& values) const {
  for (const Branch& branch : branches_) {
    values.assign(captures_.size(), {});
    size_t at = 0;
    bool matched = true;
    for (const Token& token : branch.tokens) {
      const size_t begin = at;
      matched = consume(token, key, separators, at);
      if (!matched) break;
      matched = keep(token, key.substr(begin, at - begin), values);
      if (!matched) break;
    }
    if (!matched || at != key.size()) continue;
    for (const auto& [capture, value] : branch.chosen) values[capture] = value;
    return true;
  }
  return false;
}

Template Template::parse(std::string_view text, const Pattern& pattern) {
  const auto capture_of = [&](std::string_view name) {
    const auto& captures = pattern.captures();
    const auto found = std::find(captures.begin(), captures.end(), name);
    if (found == captures.end())
      fail(text, "'" + pattern.text() + "' captures no '" + std::string(name) + "'");
    return static_cast<size_t>(found - captures.begin());
  };
  Template result;
  for (size_t at = 0; at < text.size();) {
    if (text[at] != '{') {
      const size_t end = std::min(text.find('{', at), text.size());
      result.pieces_.push_back({std::string(text.substr(at, end - at)), kText, kText, {}});
      at = end;
      continue;
    }
    const size_t close = text.find('}', at);
    if (close == std::string_view::npos) fail(text, "'{' is never closed");
    const std::string_view body = text.substr(at + 1, close - at - 1);
    at = close + 1;
    if (const auto formula = CountingText::parse(body)) {
      const size_t low = formula->counting.has_low ? capture_of(formula->low) : kText;
      result.pieces_.push_back({"", capture_of(formula->high), low, formula->counting});
    } else {
      result.pieces_.push_back({"", capture_of(body.substr(0, body.find(':'))), kText, {}});
    }
  }
  return result;
}

bool Template::expand(const std::vector<std::string_view>& values, std::string& path) const {
  path.clear();
  for (const Piece& piece : pieces_) {
    if (piece.capture == kText) {
      path += piece.text;
    } else if (!piece.counting) {
      path += values[piece.capture];
    } else {
      const auto index =
          piece.counting->join(values[piece.capture], piece.low == kText ? "" : values[piece.low]);
      if (!index) return false;
      path += std::to_string(*index);
    }
  }
  return true;
}

}  // namespace lora_mmap::keys
