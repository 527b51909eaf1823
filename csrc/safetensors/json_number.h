// The range check that JSON numbers get when nobody asks for their value.
#pragma once

#include <string_view>

namespace lora_mmap::safetensors {

// True when `number` (a well-formed JSON number) is too large for a double. Decided on the digits alone, so
// neither locale nor rounding mode matter; 1.7976931348623158e308 counts as too large, as in serde_json.
bool exceeds_double(std::string_view number);

}  // namespace lora_mmap::safetensors
