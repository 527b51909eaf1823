// TileOps::pack_down and TileOps::pack_up for AVX2 + FMA + F16C.
#pragma once

#include <cstdint>

#include "base/dtype.h"
#include "fuse/up_rows.h"

namespace lora_mmap {

void pack_down_avx2(DType weight, DType source_dtype, const void* source, int64_t count, void* panels,
                    int64_t panel_stride);
void pack_up_avx2(DType weight, DType source_dtype, const UpRows& rows, double scale, void* out,
                  int64_t out_stride_nbytes);

}  // namespace lora_mmap
