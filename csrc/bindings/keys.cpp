#include <pybind11/stl.h>

#include <optional>
#include <set>

#include "base/error.h"
#include "bindings/bindings.h"
#include "keys/groups.h"
#include "keys/pairs.h"
#include "keys/resolve.h"
#include "safetensors/header.h"

namespace py = pybind11;

namespace lora_mmap::bindings {
namespace {

using namespace lora_mmap::keys;

using SuffixTable = std::vector<std::tuple<std::string, std::string, uint32_t>>;  // pattern, role, keep
// Paths, beside, infix, whether it is whole.
using AlternativeTable = std::vector<std::tuple<std::vector<std::string>, std::string, std::string, bool>>;
using RuleTable = std::vector<std::pair<std::string, AlternativeTable>>;

std::vector<Pattern> parse_all(const std::vector<std::string>& texts) {
  std::vector<Pattern> patterns;
  for (const std::string& text : texts) patterns.push_back(Pattern::parse(text));
  return patterns;
}

Role role_named(const std::string& name) {
  if (name == "down") return Role::down;
  if (name == "up") return Role::up;
  if (name == "alpha") return Role::alpha;
  return Role::other;
}

std::shared_ptr<Grammar> make_grammar(const SuffixTable& suffix_table,
                                      const std::vector<std::string>& prefixes, const RuleTable& table) {
  std::vector<Suffix> suffixes;
  for (const auto& [text, role, keep] : suffix_table)
    suffixes.push_back({Pattern::parse(text), role_named(role), keep});
  std::vector<Rule> rules;
  for (const auto& [text, alternatives] : table) {
    Rule rule{Pattern::parse(text), {}};
    for (const auto& [paths, beside, infix, is_whole] : alternatives) {
      Alternative alternative{{}, beside, infix, is_whole};
      for (const std::string& path : paths) alternative.paths.push_back(Template::parse(path, rule.pattern));
      rule.alternatives.push_back(std::move(alternative));
    }
    rules.push_back(std::move(rule));
  }
  return std::make_shared<Grammar>(std::move(suffixes), parse_all(prefixes), std::move(rules));
}

// Groups and pairs together with whatever owns the names they point into.
struct Classification {
  py::list names;
  std::shared_ptr<const safetensors::Header> header;
  Groups groups;
  std::vector<std::optional<PlainPair>> pairs;  // one per group
};

std::vector<std::optional<PlainPair>> pair_all(const Groups& groups, const FormOf& form) {
  std::vector<std::optional<PlainPair>> pairs;
  pairs.reserve(groups.groups.size());
  for (const Group& group : groups.groups) pairs.push_back(plain_pair(group, *groups.grammar, form));
  return pairs;
}

// Views of the strings' own UTF-8, which lives as long as they do.
std::vector<std::string_view> views_of(const py::list& names) {
  std::vector<std::string_view> views;
  views.reserve(names.size());
  for (const py::handle name : names) {
    Py_ssize_t size = 0;
    const char* text = PyUnicode_AsUTF8AndSize(name.ptr(), &size);
    if (text == nullptr) throw py::error_already_set();
    views.emplace_back(text, static_cast<size_t>(size));
  }
  return views;
}

std::unique_ptr<Classification> classify_names(const std::shared_ptr<Grammar>& grammar, const py::list& names,
                                               const std::vector<std::string>& dtypes,
                                               const std::vector<std::vector<uint64_t>>& shapes) {
  if (dtypes.size() != shapes.size() || (!dtypes.empty() && dtypes.size() != names.size()))
    throw Error(Fault::argument, "[classify] " + std::to_string(names.size()) + " names, " +
                                     std::to_string(dtypes.size()) + " dtypes and " +
                                     std::to_string(shapes.size()) + " shapes, expected as many of each");
  auto result = std::make_unique<Classification>();
  result->names = py::list(py::tuple(names));  // whoever has the list may change it
  const std::vector<std::string_view> views = views_of(result->names);
  const py::gil_scoped_release unlocked;
  result->groups = classify_all(grammar, views);
  result->pairs = pair_all(result->groups, [&](uint32_t tensor) {
    if (dtypes.empty()) return TensorForm{DType::BOOL, {}};  // unknown, so no factor
    return TensorForm{dtype_from_name(dtypes[tensor]).value_or(DType::BOOL), shapes[tensor]};
  });
  return result;
}

std::unique_ptr<Classification> classify_header(const std::shared_ptr<Grammar>& grammar,
                                                std::shared_ptr<const safetensors::Header> header) {
  auto result = std::make_unique<Classification>();  // makes a Python list
  result->header = std::move(header);
  const py::gil_scoped_release unlocked;
  std::vector<std::string_view> views;
  views.reserve(result->header->size());
  for (const safetensors::Tensor& tensor : result->header->tensors()) views.push_back(tensor.name);
  result->groups = classify_all(grammar, views);
  const safetensors::Header& entries = *result->header;
  result->pairs = pair_all(result->groups, [&entries](uint32_t tensor) {
    const safetensors::Tensor& entry = entries.tensors()[tensor];
    return TensorForm{entry.dtype, entries.shape(entry)};
  });
  return result;
}

py::list groups_to_python(const Classification& self) {
  py::list list(self.groups.groups.size());
  for (size_t i = 0; i < self.groups.groups.size(); ++i) {
    const Group& group = self.groups.groups[i];
    py::tuple starts(group.starts.size());
    for (size_t k = 0; k < group.starts.size(); ++k)
      starts[k] = py::make_tuple(group.starts[k].offset, group.starts[k].prefix);
    py::tuple members(group.members.size());
    for (size_t k = 0; k < group.members.size(); ++k)
      members[k] = py::make_tuple(group.members[k].suffix, group.members[k].tensor);
    py::tuple rules(group.rules.size());
    for (size_t k = 0; k < group.rules.size(); ++k) rules[k] = group.rules[k];
    list[i] = py::make_tuple(py::str(group.stem.data(), group.stem.size()),
                             py::str(group.infix.data(), group.infix.size()), starts, members, rules);
  }
  return list;
}

// One item per group: (down, up, alpha, rows, cols, rank), or None for what is no plain pair.
py::list pairs_to_python(const Classification& self) {
  py::list list(self.pairs.size());
  for (size_t i = 0; i < self.pairs.size(); ++i) {
    const auto& pair = self.pairs[i];
    if (pair)
      list[i] = py::make_tuple(pair->down, pair->up, pair->alpha, pair->rows, pair->cols, pair->rank);
    else
      list[i] = py::none();
  }
  return list;
}

std::vector<int32_t> fit_all(const Classification& self, const ModelNames& names) {
  const py::gil_scoped_release unlocked;
  std::vector<int32_t> modules;
  modules.reserve(self.pairs.size());
  for (size_t i = 0; i < self.pairs.size(); ++i)
    modules.push_back(self.pairs[i] ? fit(self.groups.groups[i], *self.groups.grammar, *self.pairs[i], names)
                                    : -1);
  return modules;
}

// One shape per name: [rows, columns, kernel extents ...] as an adapter sees it; empty for what is no matrix.
void set_forms(ModelNames& names, const std::vector<std::vector<uint64_t>>& shapes) {
  std::vector<MatrixForm> forms;
  forms.reserve(shapes.size());
  for (const std::vector<uint64_t>& shape : shapes) {
    uint64_t cols = 1;
    for (size_t dim = 1; dim < shape.size(); ++dim) cols *= shape[dim];
    forms.push_back(shape.size() < 2 ? MatrixForm{} : MatrixForm{shape[0], cols, kernel_of(shape)});
  }
  names.set_forms(std::move(forms));
}

// One item per group: what its last prefix means that means anything, by the prefixes' `meanings`; -1: none
// does.
std::vector<int32_t> meanings_of_prefixes(const Classification& self, const std::vector<int32_t>& meanings) {
  std::vector<int32_t> found;
  found.reserve(self.groups.groups.size());
  for (const Group& group : self.groups.groups) {
    int32_t last = -1;
    for (const Start& start : group.starts)
      if (start.prefix >= 0 && meanings.at(static_cast<size_t>(start.prefix)) >= 0)
        last = meanings[static_cast<size_t>(start.prefix)];
    found.push_back(last);
  }
  return found;
}

// The suffixes that end some key of the file.
std::vector<uint32_t> suffixes_used(const Classification& self) {
  std::set<uint32_t> used;
  for (const Group& group : self.groups.groups)
    for (const Member& member : group.members) used.insert(member.suffix);
  return {used.begin(), used.end()};
}

// The prefixes that begin some key of the file.
std::vector<int32_t> prefixes_used(const Classification& self) {
  std::set<int32_t> used;
  for (const Group& group : self.groups.groups)
    for (const Start& start : group.starts)
      if (start.prefix >= 0) used.insert(start.prefix);
  return {used.begin(), used.end()};
}

// One item per group: the module that the name itself says, or (start, modules of that name, choices).
py::list resolve_to_python(const Classification& self, const ModelNames& names) {
  std::vector<Resolution> all;
  {
    const py::gil_scoped_release unlocked;
    all.reserve(self.groups.groups.size());
    for (const Group& group : self.groups.groups) all.push_back(resolve(group, *self.groups.grammar, names));
  }
  py::list list(all.size());
  for (size_t i = 0; i < all.size(); ++i) {
    const Resolution& found = all[i];
    if (found.modules.size() == 1) {
      list[i] = py::int_(found.modules.front());
      continue;
    }
    py::tuple choices(found.choices.size());
    for (size_t k = 0; k < found.choices.size(); ++k) {
      const Choice& choice = found.choices[k];
      choices[k] = py::make_tuple(choice.rule, choice.alternative, py::tuple(py::cast(choice.modules)));
    }
    list[i] = py::make_tuple(found.start, py::tuple(py::cast(found.modules)), choices);
  }
  return list;
}

}  // namespace

void register_keys(py::module_& m) {
  py::class_<Grammar, std::shared_ptr<Grammar>>(m, "Grammar")
      .def(py::init(&make_grammar), py::arg("suffixes"), py::arg("prefixes"), py::arg("rules"))
      .def("classify", &classify_header, py::arg("header"))
      .def("classify", &classify_names, py::arg("names"), py::arg("dtypes") = std::vector<std::string>(),
           py::arg("shapes") = std::vector<std::vector<uint64_t>>())
      .def("overlaps", &Grammar::overlaps)
      .def_property_readonly("states", &Grammar::states)
      .def_property_readonly("nbytes", &Grammar::nbytes);
  py::class_<Classification>(m, "Classification")
      .def("groups", &groups_to_python)
      .def("__len__", [](const Classification& self) { return self.groups.groups.size(); })
      .def("pairs", &pairs_to_python)
      .def("fit", &fit_all, py::arg("names"))
      .def_property_readonly("alphas", [](const Classification& self) { return self.groups.alphas; })
      .def_property_readonly("unknown", [](const Classification& self) { return self.groups.unknown; })
      .def("meanings_of_prefixes", &meanings_of_prefixes, py::arg("meanings"))
      .def_property_readonly("suffixes", &suffixes_used)
      .def_property_readonly("prefixes", &prefixes_used)
      .def("resolve", &resolve_to_python, py::arg("names"));
  py::class_<ModelNames>(m, "ModelNames")
      .def(py::init<std::vector<std::string>, const std::vector<bool>&,
                    std::vector<std::pair<uint32_t, std::string>>>(),
           py::arg("names"), py::arg("alive"),
           py::arg("aliases") = std::vector<std::pair<uint32_t, std::string>>())
      .def("set_forms", &set_forms, py::arg("shapes"))
      .def("__len__", &ModelNames::size);
}

}  // namespace lora_mmap::bindings
