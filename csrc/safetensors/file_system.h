// What kind of file system a file lies on, as far as it decides how to read the file.
#pragma once

namespace lora_mmap::safetensors {

// True for network, FUSE, 9p and other file systems where a page fault is a round trip to somebody else, so
// that large reads are far faster than a mapping. False where the system does not tell.
bool is_remote(int fd);

}  // namespace lora_mmap::safetensors
