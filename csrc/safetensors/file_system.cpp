#include "safetensors/file_system.h"

#include <sys/vfs.h>

#include <algorithm>
#include <cstdint>
#include <iterator>

namespace lora_mmap::safetensors {
namespace {

// statfs(2) and the systems' own headers; <linux/magic.h> has only some of them.
constexpr uint32_t kRemote[] = {
    0x00006969,  // NFS
    0x0000517B,  // SMB
    0xFF534D42,  // CIFS
    0xFE534D42,  // SMB2
    0x65735546,  // FUSE: sshfs, rclone, gcsfuse, hf-mount, virtiofs, and others
    0x01021997,  // 9p: WSL 2's /mnt, virtual machines
    0x53464846,  // WSL 1
    0x786F4256,  // VirtualBox shared folders
    0xBACBACBC,  // VMware shared folders
    0x00C36400,  // Ceph
    0x0BD00BD0,  // Lustre
    0x47504653,  // GPFS
    0x19830326,  // BeeGFS
    0x20030528,  // OrangeFS
    0xAAD7AAEA,  // PanFS
    0x5346414F,  // AFS, OpenAFS
    0x6B414653,  // kAFS
    0x73757245,  // Coda
};

}  // namespace

bool is_remote(int fd) {
  struct statfs status;
  if (::fstatfs(fd, &status) != 0) return false;
  const auto type = static_cast<uint32_t>(status.f_type);  // a signed word on some systems
  return std::find(std::begin(kRemote), std::end(kRemote), type) != std::end(kRemote);
}

}  // namespace lora_mmap::safetensors
