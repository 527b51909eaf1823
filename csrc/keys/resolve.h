// From the names a file uses to the modules a model has. Order: the path as it stands, then after each known
// prefix; for each of these what rules say of models or files with a mark of their own, the exact name, the
// flattened name, the other rules. The first hit wins; two at once are never guessed.
#pragma once

#include <cstdint>
#include <vector>

#include "keys/groups.h"
#include "keys/model_names.h"
#include "keys/pairs.h"

namespace lora_mmap::keys {

// One way in which the rules place a path.
struct Choice {
  uint32_t rule;                  // index into the grammar's rules
  uint32_t alternative;           // of that rule
  std::vector<uint32_t> modules;  // one per path of the alternative
};

struct Resolution {
  uint32_t start = 0;             // index into the group's starts
  std::vector<uint32_t> modules;  // that have the name itself; more than one: it is ambiguous
  std::vector<Choice>
      choices;  // where no module has it; more than one: shapes have to tell, or it is ambiguous

  bool is_absent() const { return modules.empty() && choices.empty(); }
};

Resolution resolve(const Group& group, const Grammar& grammar, const ModelNames& names);

// The module whose whole weight `pair` is, under the name that the file itself gives it or one that means the
// same; -1 where it takes a section or an explanation.
int32_t fit(const Group& group, const Grammar& grammar, const PlainPair& pair, const ModelNames& names);

}  // namespace lora_mmap::keys
