// From the names a file uses to the modules a model has. Order: the path as it stands, then after each known
// prefix; for each of these the exact name, the flattened name, the family rules. The first hit wins; two at
// once are never guessed.
#pragma once

#include <cstdint>
#include <vector>

#include "keys/groups.h"
#include "keys/model_names.h"
#include "keys/pairs.h"

namespace lora_mmap::keys {

struct Resolution {
  enum class Outcome : uint8_t { resolved, absent, ambiguous };
  Outcome outcome = Outcome::absent;
  uint32_t start = 0;             // index into the group's starts
  int32_t rule = -1;              // index into the grammar's rules; -1: the name itself is in the model
  int32_t alternative = -1;       // of that rule
  std::vector<uint32_t> modules;  // one per path of the alternative; when ambiguous, every candidate
};

Resolution resolve(const Group& group, const Grammar& grammar, const ModelNames& names);

// The module whose whole weight `pair` is, under the name that the file itself gives it; -1 where it takes a
// rule, a section or an explanation.
int32_t fit(const Group& group, const Grammar& grammar, const PlainPair& pair, const ModelNames& names);

}  // namespace lora_mmap::keys
