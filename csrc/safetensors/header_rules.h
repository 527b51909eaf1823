// The rules that bind a header's tensors to each other and to the file's size.
#pragma once

#include <cstdint>

namespace lora_mmap::safetensors {

class Header;

constexpr uint64_t kLengthFieldNbytes = 8;
constexpr uint64_t kMaxJsonNbytes = 100'000'000;

// All three throw Violation.

// Decodes the first 8 bytes of a file and checks that the JSON they announce fits the limit and the file.
uint64_t checked_json_nbytes(const unsigned char* length_field, uint64_t file_nbytes);
void require_length_field(uint64_t file_nbytes);

// With tensors in offset order: they tile the data from its first byte to its last, and each has as many
// bytes as its shape and type take.
void check_tiling(const Header& header, uint64_t data_nbytes);

}  // namespace lora_mmap::safetensors
