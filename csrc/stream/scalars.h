// The single numbers that adapters carry next to their factors: alpha, scale, rank.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "safetensors/file.h"
#include "safetensors/header.h"

namespace lora_mmap::stream {

// The value of each tensor (an index into header.tensors()), in the order asked for. `header` must be the
// file's. Tensors that touch in the file are read together and no other byte is read. Throws Fault::argument
// for an index out of range, Fault::adapter for a tensor without exactly one element and for C64, F4 and F6
// types; otherwise as File::read_exact.
std::vector<double> read_scalars(const safetensors::File& file, const safetensors::Header& header,
                                 std::span<const size_t> tensors);

}  // namespace lora_mmap::stream
