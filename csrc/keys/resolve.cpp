#include "keys/resolve.h"

#include <algorithm>
#include <string>

namespace lora_mmap::keys {
namespace {

bool find_by_name(std::string_view path, const ModelNames& names, Resolution& result) {
  const bool dotted = path.find('.') != std::string_view::npos;
  if (dotted) {
    const auto exact = names.exact(path);
    if (!exact.empty()) {
      result.modules.assign(exact.begin(), exact.end());
      return true;
    }
  }
  // A path without dots is its own flattened form.
  const auto ids = dotted ? names.flattened(flatten(path)) : names.flattened(path);
  result.modules.assign(ids.begin(), ids.end());
  return !ids.empty();
}

// Every path of the alternative must be in the model: half of a fused projection is not the projection.
bool expand_all(const Alternative& alternative, const std::vector<std::string_view>& values,
                const ModelNames& names, std::vector<uint32_t>& modules) {
  modules.clear();
  std::string name;
  for (const Template& path : alternative.paths) {
    if (!path.expand(values, name)) return false;
    const auto ids = names.exact(name);
    if (ids.size() != 1) return false;
    modules.push_back(ids.front());
  }
  return !modules.empty();
}

class RuleSearch {
 public:
  RuleSearch(std::string_view path, const Group& group, const Grammar& grammar, const ModelNames& names)
      : path_(path), group_(group), grammar_(grammar), names_(names) {}

  // Only what is said of files or models with this mark of their own.
  bool run(Mark mark, std::vector<Choice>& choices) {
    for (const uint32_t index : group_.rules) {
      const Rule& rule = grammar_.rule(index);
      if (mark != Mark::none && !rule.is_marked) continue;
      bool captured = false;
      for (uint32_t i = 0; i < rule.alternatives.size(); ++i) {
        const Alternative& way = rule.alternatives[i];
        if (way.mark() != mark || !holds(way)) continue;
        if (!captured && !grammar_.captures(index, path_, values_)) break;
        captured = true;
        if (expand_all(way, values_, names_, modules_)) choices.push_back({index, i, modules_});
      }
    }
    return !choices.empty();
  }

 private:
  bool holds(const Alternative& way) const {
    if (!way.beside.empty() && names_.exact(way.beside).empty()) return false;
    return way.infix.empty() || way.infix == group_.infix;
  }

  std::string_view path_;
  const Group& group_;
  const Grammar& grammar_;
  const ModelNames& names_;
  std::vector<std::string_view> values_;
  std::vector<uint32_t> modules_;
};

}  // namespace

Resolution resolve(const Group& group, const Grammar& grammar, const ModelNames& names) {
  Resolution result;
  for (uint32_t i = 0; i < group.starts.size(); ++i) {
    const std::string_view path = group.stem.substr(group.starts[i].offset);
    result.start = i;
    RuleSearch rules(path, group, grammar, names);
    if (rules.run(Mark::file, result.choices) || rules.run(Mark::model, result.choices)) break;
    if (find_by_name(path, names, result)) break;
    if (rules.run(Mark::none, result.choices)) break;
  }
  return result;
}

namespace {

// The one module that a resolution leads to, all of it; -1 otherwise.
int32_t whole_module(const Resolution& found, const Grammar& grammar) {
  if (found.modules.size() == 1) return static_cast<int32_t>(found.modules.front());
  if (found.choices.empty()) return -1;
  const uint32_t module = found.choices.front().modules.front();
  for (const Choice& choice : found.choices)
    if (!grammar.rule(choice.rule).alternatives[choice.alternative].is_whole ||
        choice.modules.front() != module)
      return -1;
  return static_cast<int32_t>(module);
}

}  // namespace

int32_t fit(const Group& group, const Grammar& grammar, const PlainPair& pair, const ModelNames& names) {
  const int32_t module = whole_module(resolve(group, grammar, names), grammar);
  const bool fits =
      module >= 0 && names.has_form(static_cast<uint32_t>(module), {pair.rows, pair.cols, pair.kernel});
  return fits ? module : -1;
}

}  // namespace lora_mmap::keys
