// Key tables as text, for targets that compile them: one entry a line, its first letter saying what it is.
//
//   d .. u .. a .. o ..   a suffix whose role is down, up, alpha or another one; after a TAB, as much text as
//   of
//                         its beginning stays with the stem
//   p ..                  a prefix, left out when it holds an index or a segment
//   r pattern TAB ..      a rule; each further field is one alternative, its paths parted by spaces; one that
//                         begins with '!' is the module beside
//   m ..                  a module of the model that keys are resolved against
//   k ..                  a key to classify
//
// (without the spaces). Other lines say nothing.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "keys/grammar.h"
#include "slow_grammar.h"

namespace lora_mmap::fuzz {

struct TableText {
  std::shared_ptr<const keys::Grammar> grammar;  // null when the tables contradict each other
  SlowGrammar slow;
  std::vector<std::string> modules;
  std::vector<std::string_view> keys;  // views into the text
  size_t refused = 0;                  // lines whose pattern is malformed; the others count
};

// Any text is fine.
TableText compile_tables(std::string_view text);

std::vector<std::string_view> split(std::string_view text, char separator);

}  // namespace lora_mmap::fuzz
