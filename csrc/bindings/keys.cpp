#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "keys/groups.h"
#include "keys/resolve.h"
#include "safetensors/header.h"

namespace py = pybind11;

namespace lora_mmap::bindings {
namespace {

using namespace lora_mmap::keys;

using RuleTable = std::vector<std::pair<std::string, std::vector<std::vector<std::string>>>>;

std::vector<Pattern> parse_all(const std::vector<std::string>& texts) {
  std::vector<Pattern> patterns;
  for (const std::string& text : texts) patterns.push_back(Pattern::parse(text));
  return patterns;
}

std::shared_ptr<Grammar> make_grammar(const std::vector<std::string>& suffixes,
                                      const std::vector<std::string>& prefixes, const RuleTable& table) {
  std::vector<Rule> rules;
  for (const auto& [text, alternatives] : table) {
    Rule rule{Pattern::parse(text), {}};
    for (const auto& paths : alternatives) {
      Alternative alternative;
      for (const std::string& path : paths) alternative.paths.push_back(Template::parse(path, rule.pattern));
      rule.alternatives.push_back(std::move(alternative));
    }
    rules.push_back(std::move(rule));
  }
  return std::make_shared<Grammar>(parse_all(suffixes), parse_all(prefixes), std::move(rules));
}

// Groups together with whatever owns the names they point into.
struct Classification {
  std::vector<std::string> names;
  std::shared_ptr<const safetensors::Header> header;
  Groups groups;
};

std::unique_ptr<Classification> classify_names(const std::shared_ptr<Grammar>& grammar,
                                               std::vector<std::string> names) {
  auto result = std::make_unique<Classification>();
  result->names = std::move(names);
  const std::vector<std::string_view> views(result->names.begin(), result->names.end());
  const py::gil_scoped_release unlocked;
  result->groups = classify_all(grammar, views);
  return result;
}

std::unique_ptr<Classification> classify_header(const std::shared_ptr<Grammar>& grammar,
                                                std::shared_ptr<const safetensors::Header> header) {
  const py::gil_scoped_release unlocked;
  std::vector<std::string_view> views;
  views.reserve(header->size());
  for (const safetensors::Tensor& tensor : header->tensors()) views.push_back(tensor.name);
  auto result = std::make_unique<Classification>();
  result->header = std::move(header);
  result->groups = classify_all(grammar, views);
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
    list[i] = py::make_tuple(py::str(group.stem.data(), group.stem.size()),
                             py::str(group.infix.data(), group.infix.size()), starts, members,
                             py::tuple(py::cast(group.rules)));
  }
  return list;
}

py::list resolve_to_python(const Classification& self, const ModelNames& names) {
  std::vector<Resolution> all;
  {
    py::gil_scoped_release unlocked;
    all.reserve(self.groups.groups.size());
    for (const Group& group : self.groups.groups) all.push_back(resolve(group, *self.groups.grammar, names));
  }
  py::list list(all.size());
  for (size_t i = 0; i < all.size(); ++i)
    list[i] = py::make_tuple(static_cast<int>(all[i].outcome), all[i].start, all[i].rule, all[i].alternative,
                             py::tuple(py::cast(all[i].modules)));
  return list;
}

}  // namespace

void register_keys(py::module_& m) {
  py::class_<Grammar, std::shared_ptr<Grammar>>(m, "Grammar")
      .def(py::init(&make_grammar), py::arg("suffixes"), py::arg("prefixes"), py::arg("rules"))
      .def("classify", &classify_header, py::arg("header"))
      .def("classify", &classify_names, py::arg("names"))
      .def_property_readonly("states", &Grammar::states)
      .def_property_readonly("nbytes", &Grammar::nbytes);
  py::class_<Classification>(m, "Classification")
      .def("groups", &groups_to_python)
      .def_property_readonly("unknown", [](const Classification& self) { return self.groups.unknown; })
      .def("resolve", &resolve_to_python, py::arg("names"));
  py::class_<ModelNames>(m, "ModelNames")
      .def(py::init<std::vector<std::string>, const std::vector<bool>&>(), py::arg("names"), py::arg("alive"))
      .def("__len__", &ModelNames::size);
}

}  // namespace lora_mmap::bindings
