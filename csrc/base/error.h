// Failures of the native core. The bindings turn each kind into one Python exception class
// (lora_mmap.errors).
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace lora_mmap {

enum class Fault {
  header,    // a safetensors header breaks a rule
  read,      // the file gave fewer bytes than promised, or changed under us
  closed,    // the object was closed before this call
  adapter,   // a tensor is not what its key says it is
  pattern,   // a key pattern or a family table is malformed
  argument,  // the caller passed something impossible
  cuda,      // the CUDA driver is missing, cannot do what was asked, or failed
};

class Error : public std::runtime_error {
 public:
  Error(Fault fault, const std::string& message) : std::runtime_error(message), fault_(fault) {}
  Fault fault() const { return fault_; }

 private:
  Fault fault_;
};

// A failed system call: becomes the OSError subclass that belongs to `code` (an errno value).
class OsError : public std::runtime_error {
 public:
  OsError(int code, std::string path, const std::string& message)
      : std::runtime_error(message), code_(code), path_(std::move(path)) {}
  int code() const { return code_; }
  const std::string& path() const { return path_; }

 private:
  int code_;
  std::string path_;
};

}  // namespace lora_mmap
