// What must hold for any keys under any tables.
#pragma once

#include <string_view>
#include <vector>

#include "keys/model_names.h"
#include "table_text.h"

namespace lora_mmap::fuzz {

// Classifies `keys`, all at once and each alone, and resolves them against `names`.
void check_classification(const TableText& tables, const keys::ModelNames& names,
                          const std::vector<std::string_view>& keys);

}  // namespace lora_mmap::fuzz
