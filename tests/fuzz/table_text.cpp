#include "table_text.h"

#include "base/error.h"
#include "require.h"

namespace lora_mmap::fuzz {
namespace {

using keys::Pattern;
using keys::Role;

keys::Rule parse_rule(const std::vector<std::string_view>& fields) {
  keys::Rule rule{Pattern::parse(fields[0]), {}};
  for (size_t i = 1; i < fields.size(); ++i) {
    keys::Alternative alternative;
    for (const std::string_view path : split(fields[i], ' ')) {
      if (path.starts_with('!'))
        alternative.beside = path.substr(1);
      else
        alternative.paths.push_back(keys::Template::parse(path, rule.pattern));
    }
    rule.alternatives.push_back(std::move(alternative));
  }
  return rule;
}

class Compiler {
 public:
  void read(std::string_view line) {
    if (line.empty()) return;
    const std::string_view entry = line.substr(1);
    switch (line[0]) {
      case 'd':
        return add_suffix(entry, Role::down);
      case 'u':
        return add_suffix(entry, Role::up);
      case 'a':
        return add_suffix(entry, Role::alpha);
      case 'o':
        return add_suffix(entry, Role::other);
      case 'p':
        return add_prefix(Pattern::parse(entry));
      case 'r':
        rules_.push_back(parse_rule(split(entry, '\t')));
        return result.slow.add_rule(rules_.back().pattern.text());
      case 'm':
        return void(result.modules.emplace_back(entry));
      case 'k':
        return result.keys.push_back(entry);
    }
  }

  void compile() {
    result.grammar =
        std::make_shared<keys::Grammar>(std::move(suffixes_), std::move(prefixes_), std::move(rules_));
  }

  TableText result;

 private:
  void add_suffix(std::string_view entry, Role role) {
    const auto fields = split(entry, '\t');
    Pattern pattern = Pattern::parse(fields[0]);
    if (pattern.has_counting()) return;  // refused, and all other lines with it
    const size_t keep = fields.size() > 1 ? plain_begin(pattern, fields[1].size()) : 0;
    result.slow.add_suffix(pattern.text(), keep);
    suffixes_.push_back({std::move(pattern), role, static_cast<uint32_t>(keep)});
  }

  // No more than every branch begins with as plain text.
  static size_t plain_begin(const Pattern& pattern, size_t wanted) {
    for (const keys::Branch& branch : pattern.branches()) {
      const keys::Token& first = branch.tokens.front();
      wanted = std::min(wanted, first.kind == keys::Token::Kind::text ? first.text.size() : 0);
    }
    return wanted;
  }

  // Plain text and choices, as all prefixes that ship: they nest, so an index in one multiplies the states
  // until the tables are refused, and the fuzzer would do little else.
  void add_prefix(Pattern prefix) {
    for (const keys::Branch& branch : prefix.branches())
      for (const keys::Token& token : branch.tokens)
        if (token.kind != keys::Token::Kind::text) return;
    result.slow.add_prefix(prefix.text());
    prefixes_.push_back(std::move(prefix));
  }

  std::vector<keys::Suffix> suffixes_;
  std::vector<Pattern> prefixes_;
  std::vector<keys::Rule> rules_;
};

// False when `work` refuses a pattern, which is the only thing that it may throw.
template <class Work>
bool succeeds(Work work) {
  try {
    work();
    return true;
  } catch (const Error& error) {
    require(error.fault() == Fault::pattern, "only Fault::pattern is thrown", error.what());
    return false;
  }
}

}  // namespace

TableText compile_tables(std::string_view text) {
  Compiler compiler;
  for (const std::string_view line : split(text, '\n'))
    if (!succeeds([&] { compiler.read(line); })) ++compiler.result.refused;
  succeeds([&] { compiler.compile(); });
  return std::move(compiler.result);
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

}  // namespace lora_mmap::fuzz
