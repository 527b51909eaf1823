#include "keys/groups.h"

#include <bit>
#include <functional>

#include "safetensors/counters.h"

namespace lora_mmap::keys {
namespace {

constexpr uint32_t kNone = static_cast<uint32_t>(-1);

struct Identity {
  std::string_view stem;
  std::string_view infix;
  bool operator==(const Identity&) const = default;
};

// Numbers identities in order of first appearance. Open addressing, never more than half full.
class Numbering {
 public:
  explicit Numbering(size_t most) : slots_(std::bit_ceil(2 * most + 2), kNone) {}

  // The number of `id`, and whether it is new.
  std::pair<uint32_t, bool> number(const Identity& id) {
    const std::hash<std::string_view> hash;
    const size_t mask = slots_.size() - 1;
    for (size_t at = hash(id.stem) * 31 + hash(id.infix);; ++at) {
      uint32_t& slot = slots_[at & mask];
      if (slot == kNone) {
        slot = static_cast<uint32_t>(known_.size());
        known_.push_back(id);
        return {slot, true};
      }
      if (known_[slot] == id) return {slot, false};
    }
  }

 private:
  std::vector<uint32_t> slots_;
  std::vector<Identity> known_;
};

}  // namespace

// Gathers into pools first; the spans are cut when nothing moves any more.
class Grouping {
 public:
  Grouping(std::shared_ptr<const Grammar> grammar, const std::vector<std::string_view>& names)
      : names_(names), numbering_(names.size()), group_of_(names.size(), kNone), suffix_of_(names.size()) {
    result_.grammar = std::move(grammar);
  }

  Groups run() && {
    for (uint32_t tensor = 0; tensor < names_.size(); ++tensor) add(tensor);
    gather_members();
    for (size_t i = 0; i < ends_.size(); ++i) {
      const Ends begin = i ? ends_[i - 1] : Ends{};
      result_.groups[i].starts =
          std::span(result_.starts_).subspan(begin.starts, ends_[i].starts - begin.starts);
      result_.groups[i].rules = std::span(result_.rules_).subspan(begin.rules, ends_[i].rules - begin.rules);
    }
    return std::move(result_);
  }

 private:
  struct Ends {
    size_t starts = 0, rules = 0;
  };

  void add(uint32_t tensor) {
    const Grammar& grammar = *result_.grammar;
    if (!grammar.find_suffix(names_[tensor], match_)) {
      result_.unknown.push_back(tensor);
      return;
    }
    const auto suffix = static_cast<uint32_t>(match_.suffix);
    if (grammar.role(suffix) == Role::alpha) result_.alphas.push_back(tensor);
    const Identity id{match_.stem, match_.infix};
    if (result_.groups.empty() || !(id == last_)) {  // neighbours in a file mostly belong to one module
      const auto [number, fresh] = numbering_.number(id);
      if (fresh) begin_group(id);
      last_ = id;
      group_ = number;
    }
    group_of_[tensor] = group_;
    suffix_of_[tensor] = suffix;
  }

  void begin_group(const Identity& id) {
    result_.grammar->walk_stem(match_);
    result_.starts_.insert(result_.starts_.end(), match_.starts.begin(), match_.starts.end());
    result_.rules_.insert(result_.rules_.end(), match_.rules.begin(), match_.rules.end());
    ends_.push_back({result_.starts_.size(), result_.rules_.size()});
    result_.groups.push_back({id.stem, id.infix, {}, {}, {}});
  }

  // A counting sort by group, which keeps the order of the tensors.
  void gather_members() {
    std::vector<uint32_t> begin(result_.groups.size() + 1);
    for (const uint32_t group : group_of_)
      if (group != kNone) ++begin[group + 1];
    for (size_t i = 1; i < begin.size(); ++i) begin[i] += begin[i - 1];
    result_.members_.resize(begin.back());
    for (size_t i = 0; i < result_.groups.size(); ++i)
      result_.groups[i].members = std::span(result_.members_).subspan(begin[i], begin[i + 1] - begin[i]);
    for (uint32_t tensor = 0; tensor < group_of_.size(); ++tensor)
      if (group_of_[tensor] != kNone)
        result_.members_[begin[group_of_[tensor]]++] = {tensor, suffix_of_[tensor]};
  }

  const std::vector<std::string_view>& names_;
  Numbering numbering_;
  std::vector<uint32_t> group_of_, suffix_of_;  // by tensor
  std::vector<Ends> ends_;                      // by group, in the pools
  KeyMatch match_;
  Identity last_;
  uint32_t group_ = 0;
  Groups result_;
};

Groups classify_all(std::shared_ptr<const Grammar> grammar, const std::vector<std::string_view>& names) {
  Groups result = Grouping(std::move(grammar), names).run();
  safetensors::count(safetensors::counters().keys_classified, names.size());
  return result;
}

}  // namespace lora_mmap::keys
