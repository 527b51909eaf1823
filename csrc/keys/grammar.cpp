#include "keys/grammar.h"

#include <algorithm>
#include <set>

#include "base/error.h"

namespace lora_mmap::keys {
namespace {

[[noreturn]] void fail(const char* what, const Pattern& pattern, const char* problem) {
  throw Error(Fault::pattern,
              std::string("[register_family] ") + what + " '" + pattern.text() + "' " + problem);
}

// Only a rule can do without a path; a suffix or a prefix that fits has been read.
void require_usable(const char* what, const Pattern& pattern, std::set<std::string>& seen) {
  if (!seen.insert(pattern.text()).second) fail(what, pattern, "is listed twice");
  if (pattern.has_counting()) fail(what, pattern, "counts through levels, which only paths of modules do");
}

Automaton compile_suffixes(const std::vector<Suffix>& suffixes) {
  AutomatonBuilder builder;
  std::set<std::string> seen;
  for (uint32_t i = 0; i < suffixes.size(); ++i) {
    require_usable("suffix", suffixes[i].pattern, seen);
    builder.add_reversed(suffixes[i].pattern, Separators::exact, i);
  }
  return builder.compile();
}

Automaton compile_stems(const std::vector<Pattern>& prefixes, const std::vector<Rule>& rules) {
  AutomatonBuilder builder;
  std::set<std::string> seen;
  uint32_t tag = 0;
  for (const Pattern& prefix : prefixes) {
    require_usable("prefix", prefix, seen);
    builder.add(prefix, Separators::exact, tag++, true);
  }
  for (const Rule& rule : rules) builder.add(rule.pattern, Separators::either, tag++);
  return builder.compile();
}

// A stem that begins with as many nested prefixes as this is no adapter's.
constexpr size_t kMaxStarts = 16;

}  // namespace

Grammar::Grammar(std::vector<Suffix> suffixes, std::vector<Pattern> prefixes, std::vector<Rule> rules)
    : suffixes_(std::move(suffixes)),
      rules_(std::move(rules)),
      n_prefixes_(static_cast<uint32_t>(prefixes.size())) {
  for (Rule& rule : rules_)
    rule.is_marked = std::any_of(rule.alternatives.begin(), rule.alternatives.end(),
                                 [](const Alternative& way) { return way.mark() != Mark::none; });
  suffix_ = compile_suffixes(suffixes_);
  stem_ = compile_stems(prefixes, rules_);
}

void Grammar::classify(std::string_view key, KeyMatch& match) const {
  if (find_suffix(key, match)) walk_stem(match);
}

// The longest suffix wins: `.lora_A.weight` over `.weight`.
bool Grammar::find_suffix(std::string_view key, KeyMatch& match) const {
  match.suffix = -1;
  match.infix = {};
  Automaton::State state = Automaton::kStart;
  for (size_t at = key.size(); at-- > 1;) {
    state = suffix_.next(state, key[at]);
    if (state == Automaton::kDead) break;
    const auto tags = suffix_.tags(state);
    if (tags.empty()) continue;
    match.suffix = static_cast<int32_t>(tags.front());
    match.stem = key.substr(0, at);
  }
  if (match.suffix < 0) return false;
  const Suffix& suffix = suffixes_[static_cast<size_t>(match.suffix)];
  if (!suffix.pattern.captures().empty()) {
    if (suffix.pattern.match(key.substr(match.stem.size()), Separators::exact, match.captured))
      match.infix = match.captured.front();
  }
  match.stem = key.substr(0, match.stem.size() + suffix.keep);
  if (match.stem.size() > 1 && match.stem.back() == '_') match.stem.remove_suffix(1);
  return true;
}

void Grammar::walk_stem(KeyMatch& match) const {
  const std::string_view stem = match.stem;
  match.rules.clear();
  match.starts.clear();
  match.starts.push_back({0, -1});
  Automaton::State state = Automaton::kStart;
  for (size_t at = 0; at < stem.size(); ++at) {
    state = stem_.next(state, stem[at]);
    if (state == Automaton::kDead) return;
    const auto tags = stem_.tags(state);
    if (tags.empty()) continue;
    const size_t end = at + 1;
    if (end == stem.size()) {
      for (const uint32_t tag : tags)
        if (tag >= n_prefixes_) match.rules.push_back(tag - n_prefixes_);
    } else if (tags.front() < n_prefixes_ && match.starts.size() < kMaxStarts) {
      match.starts.push_back({static_cast<uint32_t>(end), static_cast<int32_t>(tags.front())});
    }
  }
}

std::vector<std::pair<uint32_t, uint32_t>> Grammar::overlaps() const {
  std::set<std::pair<uint32_t, uint32_t>> found;
  for (Automaton::State state = 0; state < stem_.states(); ++state) {
    const auto tags = stem_.tags(state);
    for (size_t i = 0; i < tags.size(); ++i)
      for (size_t k = i + 1; k < tags.size(); ++k)
        if (tags[i] >= n_prefixes_) found.emplace(tags[i] - n_prefixes_, tags[k] - n_prefixes_);
  }
  return {found.begin(), found.end()};
}

}  // namespace lora_mmap::keys
