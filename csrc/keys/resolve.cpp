#include "keys/resolve.h"

#include <algorithm>

namespace lora_mmap::keys {
namespace {

using Outcome = Resolution::Outcome;

bool find_by_name(std::string_view path, const ModelNames& names, Resolution& result) {
  const bool dotted = path.find('.') != std::string_view::npos;
  if (dotted) {
    if (const auto id = names.exact(path)) {
      result.modules = {*id};
      result.outcome = Outcome::resolved;
      return true;
    }
  }
  // A path without dots is its own flattened form.
  const auto ids = dotted ? names.flattened(flatten(path)) : names.flattened(path);
  if (ids.empty()) return false;
  result.modules.assign(ids.begin(), ids.end());
  result.outcome = ids.size() == 1 ? Outcome::resolved : Outcome::ambiguous;
  return true;
}

// Every path of the alternative must be in the model: half of a fused projection is not the projection.
bool expand_all(const Alternative& alternative, const std::vector<std::string_view>& values,
                const ModelNames& names, std::vector<uint32_t>& modules) {
  modules.clear();
  for (const Template& path : alternative.paths) {
    const auto id = names.exact(path.expand(values));
    if (!id) return false;
    modules.push_back(*id);
  }
  return !modules.empty();
}

bool find_by_rules(std::string_view path, const Group& group, const Grammar& grammar, const ModelNames& names,
                   Resolution& result) {
  std::vector<std::string_view> values;
  std::vector<uint32_t> modules;
  for (const uint32_t rule : group.rules) {
    if (!grammar.captures(rule, path, values)) continue;
    const auto& alternatives = grammar.rule(rule).alternatives;
    for (size_t i = 0; i < alternatives.size(); ++i) {
      if (!expand_all(alternatives[i], values, names, modules) || modules == result.modules) continue;
      if (result.outcome == Outcome::absent) {
        result.outcome = Outcome::resolved;
        result.rule = static_cast<int32_t>(rule);
        result.alternative = static_cast<int32_t>(i);
        result.modules = modules;
      } else {
        result.outcome = Outcome::ambiguous;
        result.modules.insert(result.modules.end(), modules.begin(), modules.end());
      }
    }
  }
  return result.outcome != Outcome::absent;
}

}  // namespace

Resolution resolve(const Group& group, const Grammar& grammar, const ModelNames& names) {
  Resolution result;
  for (uint32_t i = 0; i < group.starts.size(); ++i) {
    const std::string_view path = group.stem.substr(group.starts[i].offset);
    result.start = i;
    if (find_by_name(path, names, result)) break;
    if (!group.rules.empty() && find_by_rules(path, group, grammar, names, result)) break;
  }
  return result;
}

int32_t fit(const Group& group, const Grammar& grammar, const PlainPair& pair, const ModelNames& names) {
  const Resolution found = resolve(group, grammar, names);
  if (found.outcome != Outcome::resolved || found.rule >= 0) return -1;
  const uint32_t module = found.modules.front();
  return names.has_form(module, pair.rows, pair.cols) ? static_cast<int32_t>(module) : -1;
}

}  // namespace lora_mmap::keys
