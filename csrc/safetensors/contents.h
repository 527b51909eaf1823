// Says what lies at a place in a file, so that a failed read can name it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace lora_mmap::safetensors {

class Contents {
 public:
  virtual std::string at(uint64_t offset) const = 0;  // offset in bytes from the start of the file

 protected:
  ~Contents() = default;
};

// The same name wherever the read is.
class Named final : public Contents {
 public:
  explicit Named(std::string_view name) : name_(name) {}
  std::string at(uint64_t) const override { return std::string(name_); }

 private:
  std::string_view name_;
};

}  // namespace lora_mmap::safetensors
