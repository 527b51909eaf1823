// Rows of B as TileOps read them.
#pragma once

#include <cstdint>

namespace lora_mmap {

// `rows` rows of `count` elements, `stride_nbytes` from one to the next.
struct UpRows {
  const void* data;
  int64_t count;
  int64_t rows = 1;
  int64_t stride_nbytes = 0;
};

}  // namespace lora_mmap
