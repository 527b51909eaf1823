// The classifier with the tables that ship: any list of keys, one a line or parted by NUL bytes.
#include <fstream>
#include <sstream>

#include "classification.h"
#include "require.h"

namespace lora_mmap::fuzz {
namespace {

struct Shipped {
  std::string text;
  TableText tables;
  keys::ModelNames names;
};

std::string read_text(const char* path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  require(!text.str().empty(), "key tables are there: run tests/fuzz/key_tables.py", path);
  return text.str();
}

const Shipped& shipped() {
  static const Shipped instance = [] {
    std::string text = read_text(LORA_MMAP_KEY_TABLES);
    TableText tables = compile_tables(text);
    require(tables.refused == 0 && tables.grammar, "the tables that ship are sound");
    std::vector<std::string> modules = tables.modules;
    const std::vector<bool> alive(modules.size(), true);
    return Shipped{std::move(text), std::move(tables), {std::move(modules), alive}};
  }();
  return instance;
}

}  // namespace
}  // namespace lora_mmap::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lora_mmap::fuzz;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const char separator = input.find('\0') == input.npos ? '\n' : '\0';
  check_classification(shipped().tables, shipped().names, split(input, separator));
  return 0;
}
