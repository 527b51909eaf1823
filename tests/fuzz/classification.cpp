#include "classification.h"

#include <algorithm>
#include <set>
#include <utility>

#include "keys/groups.h"
#include "keys/resolve.h"
#include "require.h"

namespace lora_mmap::fuzz {
namespace {

using keys::Group;
using keys::Groups;
using keys::KeyMatch;
using keys::Start;

// True for a pattern with an index that counts through several levels, as in `in.{i*3+j+1}`.
bool counts(const std::string& pattern) {
  for (size_t at = pattern.find('{'); at != pattern.npos; at = pattern.find('{', at + 1)) {
    const std::string capture = pattern.substr(at, pattern.find('}', at) - at);
    if (capture.find(':') == capture.npos && capture.find_first_of("*+") != capture.npos) return true;
  }
  return false;
}

bool same_starts(std::span<const Start> a, std::span<const Start> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](Start x, Start y) { return x.offset == y.offset && x.prefix == y.prefix; });
}

class Checker {
 public:
  Checker(const TableText& tables, const keys::ModelNames& names, const std::vector<std::string_view>& keys)
      : tables_(tables), grammar_(*tables.grammar), names_(names), keys_(keys) {}

  void run() {
    const Groups groups = classify_all(tables_.grammar, keys_);
    check_partition(groups);
    for (const uint32_t tensor : groups.unknown) check_unknown(keys_[tensor]);
    for (const Group& group : groups.groups) {
      check_path(group);
      check_rules(group);
      check_resolution(group);
      for (const keys::Member& member : group.members) check_alone(group, member);
    }
  }

 private:
  // Every key is in one group or unknown. No two groups are alike, and all come in the order of their keys.
  void check_partition(const Groups& groups) const {
    std::vector<uint32_t> alphas, all = groups.unknown;
    require(std::is_sorted(all.begin(), all.end()), "unknown keys are in order");
    std::set<std::pair<std::string_view, std::string_view>> identities;
    uint32_t next = 0;
    for (const Group& group : groups.groups) {
      require(!group.members.empty() && group.members.front().tensor >= next, "groups are in order");
      next = group.members.front().tensor;
      require(identities.emplace(group.stem, group.infix).second, "no two groups are the same", group.stem);
      uint32_t least = 0;
      for (const keys::Member& member : group.members) {
        require(member.tensor >= std::exchange(least, member.tensor), "members are in order", group.stem);
        all.push_back(member.tensor);
        if (grammar_.role(member.suffix) == keys::Role::alpha) alphas.push_back(member.tensor);
      }
    }
    std::sort(alphas.begin(), alphas.end());
    require(alphas == groups.alphas, "alphas are the members with that role, ascending");
    std::sort(all.begin(), all.end());
    require(all.size() == keys_.size(), "no key is lost and none comes twice");
    for (uint32_t i = 0; i < all.size(); ++i) require(all[i] == i, "every key is somewhere");
  }

  void check_unknown(std::string_view key) {
    KeyMatch slow;
    require(!grammar_.find_suffix(key, used_) && used_.suffix == -1, "unknown in a list, unknown alone", key);
    require(!tables_.slow.find_suffix(key, slow), "an unknown key ends in no suffix", key);
  }

  void check_path(const Group& group) const {
    require(!group.stem.empty(), "stems are not empty");
    require(group.starts[0].offset == 0 && group.starts[0].prefix == -1, "the first start is the whole stem");
    for (size_t i = 1; i < group.starts.size(); ++i) {
      require(group.starts[i - 1].offset < group.starts[i].offset, "starts ascend", group.stem);
      require(group.starts[i].offset < group.stem.size(), "starts lie within the stem", group.stem);
      require(group.starts[i].prefix >= 0, "other starts come after a prefix", group.stem);
    }
    KeyMatch slow;
    slow.stem = group.stem;
    tables_.slow.walk_stem(slow);
    require(same_starts(group.starts, slow.starts), "starts, by trying all prefixes", group.stem);
    require(std::ranges::equal(group.rules, slow.rules), "rules, by trying all of them", group.stem);
  }

  // The automaton and the patterns agree.
  void check_rules(const Group& group) const {
    std::vector<std::string_view> values;
    std::vector<uint32_t> captured;
    for (uint32_t rule = 0; rule < tables_.slow.rules.size(); ++rule) {
      const bool any = std::any_of(group.starts.begin(), group.starts.end(), [&](Start start) {
        return grammar_.captures(rule, group.stem.substr(start.offset), values);
      });
      if (any) captured.push_back(rule);
    }
    const bool counting = std::ranges::any_of(
        group.rules, [this](uint32_t rule) { return counts(tables_.slow.rules[rule].pattern()); });
    if (group.starts.size() < kMaxStarts && !counting)
      require(std::ranges::equal(captured, group.rules), "rules are those whose pattern matches", group.stem);
    else  // a rule may fit after a start that was not kept, or but for a number that nothing counts to
      require(std::includes(group.rules.begin(), group.rules.end(), captured.begin(), captured.end()),
              "a rule whose pattern matches is listed", group.stem);
  }

  void check_resolution(const Group& group) const {
    const keys::Resolution found = resolve(group, grammar_, names_);
    for (const uint32_t module : found.modules) require(module < names_.size(), "modules are in the model");
    require(found.start < group.starts.size(), "a resolution is of one of the starts");
    require(found.modules.empty() || found.choices.empty(), "by name or by rule, never both", group.stem);
    bool conditional = false, plain = false;
    for (const keys::Choice& choice : found.choices) {
      require(std::ranges::count(group.rules, choice.rule) == 1, "only rules that the path fits", group.stem);
      const keys::Alternative& way = grammar_.rule(choice.rule).alternatives.at(choice.alternative);
      require(choice.modules.size() == way.paths.size(), "a module for each path", group.stem);
      for (const uint32_t module : choice.modules)
        require(module < names_.size(), "modules are in the model");
      (way.beside.empty() ? plain : conditional) = true;
      require(way.beside.empty() || !names_.exact(way.beside).empty(), "the mark is in the model",
              group.stem);
    }
    require(!conditional || !plain, "what is said of marked models goes first", group.stem);
  }

  // A key means the same whatever the others are, and whatever the buffer held before.
  void check_alone(const Group& group, const keys::Member& member) {
    const std::string_view key = keys_[member.tensor];
    grammar_.classify(key, used_);
    require(used_.suffix == static_cast<int32_t>(member.suffix), "suffix, alone and in a list", key);
    require(used_.stem == group.stem && used_.infix == group.infix, "stem and infix, alone and in a list",
            key);
    require(same_starts(used_.starts, group.starts), "starts, alone and in a list", key);
    require(std::ranges::equal(used_.rules, group.rules), "rules, alone and in a list", key);

    KeyMatch slow;
    require(tables_.slow.find_suffix(key, slow), "a suffix, by trying all of them", key);
    require(slow.suffix == used_.suffix, "the longest suffix, the first of equals", key);
    require(slow.stem == used_.stem, "the stem before it", key);
    const size_t end = slow.stem.size(), keep = tables_.slow.keep[member.suffix];
    const std::string& suffix = tables_.slow.suffixes[member.suffix].pattern();
    const auto fits = [&](size_t begin) {
      return reads_as(suffix, key.substr(begin - keep), keys::Separators::exact, used_.infix);
    };
    if (suffix.find('{') == suffix.npos)
      require(used_.infix.empty(), "no capture, no infix", key);
    else  // after a '_' that was left at the stem's end, it begins one character later
      require((end >= keep && fits(end)) || (key[end] == '_' && fits(end + 1)),
              "the infix is what the suffix captures", key);
  }

  const TableText& tables_;
  const keys::Grammar& grammar_;
  const keys::ModelNames& names_;
  const std::vector<std::string_view>& keys_;
  KeyMatch used_;  // never cleared
};

}  // namespace

void check_classification(const TableText& tables, const keys::ModelNames& names,
                          const std::vector<std::string_view>& keys) {
  Checker(tables, names, keys).run();
}

}  // namespace lora_mmap::fuzz
