// The pattern language and the classifier with tables that a user might register: any text in the format of
// table_text.h. Malformed patterns throw Fault::pattern and nothing else; the others mean what they say.
#include "classification.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lora_mmap;
  const fuzz::TableText tables = fuzz::compile_tables({reinterpret_cast<const char*>(data), size});
  if (!tables.grammar) return 0;
  const std::vector<bool> alive(tables.modules.size(), true);
  fuzz::check_classification(tables, keys::ModelNames(tables.modules, alive), tables.keys);
  return 0;
}
