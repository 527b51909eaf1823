// The header of a safetensors file: which tensors it holds, of what type and shape, and where their bytes
// lie.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/dtype.h"
#include "safetensors/contents.h"
#include "safetensors/name_table.h"

namespace lora_mmap::safetensors {

class File;

struct Tensor {
  std::string_view name;  // UTF-8; may be empty or hold NUL bytes
  uint64_t begin = 0;     // bytes, relative to the end of the header
  uint64_t end = 0;
  uint32_t first_dim = 0;  // its shape is Header's, see shape()
  uint32_t rank = 0;
  DType dtype = DType::U8;

  uint64_t nbytes() const { return end - begin; }
};

std::string quoted(const Tensor& tensor);  // "tensor `x`" for error texts, NUL bytes written out

// A parsed header that obeys every rule of the format. Owns all it hands out: views and spans live as long as
// it does, and survive a move. Immutable, so any number of threads may read it.
class Header final : public Contents {
 public:
  using Metadata = std::vector<std::pair<std::string_view, std::string_view>>;

  // Both throw Fault::header with safetensors' own wording when a rule is broken. read() takes exactly the
  // header's bytes from the file and also throws what File::read_exact throws. parse() takes a whole file's
  // bytes and copies what it keeps.
  static Header read(const File& file);
  static Header parse(std::string_view file_bytes);

  // In the order of their bytes in the file; empty tensors at the same offset in the order of the header.
  std::span<const Tensor> tensors() const { return tensors_; }
  size_t size() const { return tensors_.size(); }

  std::span<const uint64_t> shape(const Tensor& tensor) const {
    return std::span(dims_).subspan(tensor.first_dim, tensor.rank);
  }
  uint64_t element_count(const Tensor& tensor) const;
  uint64_t file_offset(const Tensor& tensor) const { return nbytes_ + tensor.begin; }

  std::string at(uint64_t file_offset) const override;  // quoted(), or "the header"

  std::optional<size_t> find(std::string_view name) const;  // an index into tensors()

  // In the order of the file, every key once; nothing when the file has none or null.
  const std::optional<Metadata>& metadata() const { return metadata_; }

  uint64_t nbytes() const { return nbytes_; }  // the length field and the JSON after it

 private:
  friend class HeaderParser;
  Header() = default;

  std::unique_ptr<char[]> json_;
  uint64_t nbytes_ = 0;
  std::vector<Tensor> tensors_;
  std::vector<uint64_t> dims_;
  NameTable places_;
  std::optional<Metadata> metadata_;
};

}  // namespace lora_mmap::safetensors
