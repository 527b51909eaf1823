#include "safetensors/file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "safetensors/counters.h"
#include "safetensors/descriptor.h"

namespace lora_mmap::safetensors {
namespace {

// Linux moves at most 0x7ffff000 bytes per call; asking for less keeps other systems' limits out of the way.
constexpr uint64_t kMaxPread = uint64_t{1} << 30;

[[noreturn]] void throw_os_error(int code, const std::string& path) {
  throw OsError(code, path, std::generic_category().message(code) + ": " + path);
}

int open_read_only(const std::string& path) {
  if (path.find('\0') != std::string::npos) throw Error(Fault::argument, "embedded null byte in a file path");
  for (;;) {
    // O_NONBLOCK: opening a FIFO must not wait for its writer. It means nothing for regular files.
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd >= 0) return fd;
    if (errno != EINTR) throw_os_error(errno, path);
  }
}

struct stat status_of(int fd, const std::string& path) {
  struct stat status;
  if (::fstat(fd, &status) != 0) throw_os_error(errno, path);
  return status;
}

FileIdentity identity_of(const struct stat& status) {
  constexpr int64_t kNanosPerSecond = 1'000'000'000;
  return {static_cast<uint64_t>(status.st_dev), static_cast<uint64_t>(status.st_ino),
          static_cast<uint64_t>(status.st_size),
          static_cast<int64_t>(status.st_mtim.tv_sec) * kNanosPerSecond + status.st_mtim.tv_nsec};
}

}  // namespace

struct File::State {
  explicit State(int fd) : descriptor(std::make_shared<const Descriptor>(fd)) {}

  std::mutex mutex;  // guards descriptor
  std::shared_ptr<const Descriptor> descriptor;
  std::atomic<uint64_t> bytes_read{0};
};

File::File(std::string path)
    : path_(std::move(path)), state_(std::make_unique<State>(open_read_only(path_))) {
  const struct stat status = status_of(state_->descriptor->fd(), path_);
  if (S_ISDIR(status.st_mode)) throw_os_error(EISDIR, path_);
  if (!S_ISREG(status.st_mode))
    throw OsError(EINVAL, path_, "Not a regular file (a FIFO, socket or device): " + path_);
  identity_ = identity_of(status);
  count(counters().files_opened);
}

File::~File() = default;
File::File(File&&) noexcept = default;
File& File::operator=(File&&) noexcept = default;

uint64_t File::bytes_read() const {
  return state_->bytes_read.load(std::memory_order_relaxed);
}

bool File::closed() const {
  const std::lock_guard lock(state_->mutex);
  return state_->descriptor == nullptr;
}

void File::close() {
  std::shared_ptr<const Descriptor> last;  // closed outside the lock
  const std::lock_guard lock(state_->mutex);
  last.swap(state_->descriptor);
}

std::shared_ptr<const File::Descriptor> File::descriptor() const {
  const std::lock_guard lock(state_->mutex);
  if (!state_->descriptor) throw Error(Fault::closed, "File is closed: " + path_);
  return state_->descriptor;
}

void File::check_unchanged() const {
  const FileIdentity now = identity_of(status_of(descriptor()->fd(), path_));
  if (now.size != identity_.size)
    throw Error(Fault::read, path_ + ": the file changed after it was opened: size expected " +
                                 std::to_string(identity_.size) + " bytes, got " + std::to_string(now.size));
  if (now.mtime_ns != identity_.mtime_ns)
    throw Error(Fault::read,
                path_ + ": the file was written to after it was opened: modification time expected " +
                    std::to_string(identity_.mtime_ns) + " ns, got " + std::to_string(now.mtime_ns));
}

void File::require_range(uint64_t offset, uint64_t nbytes) const {
  if (offset > size() || nbytes > size() - offset)
    throw Error(Fault::argument, path_ + ": no " + std::to_string(nbytes) + " bytes at offset " +
                                     std::to_string(offset) + ": the file has " + std::to_string(size()));
}

void File::read_exact(uint64_t offset, uint64_t nbytes, void* destination, std::string_view what) const {
  require_range(offset, nbytes);
  const std::shared_ptr<const Descriptor> open = descriptor();
  char* const bytes = static_cast<char*>(destination);
  uint64_t done = 0;
  while (done < nbytes) {
    const ssize_t got = ::pread(open->fd(), bytes + done, std::min(nbytes - done, kMaxPread),
                                static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_os_error(errno, path_);
    if (got == 0)
      throw Error(Fault::read, path_ + ": expected " + std::to_string(nbytes) + " bytes at offset " +
                                   std::to_string(offset) + " for " + std::string(what) + ", got " +
                                   std::to_string(done) + ": the file was truncated after it was opened");
    done += static_cast<uint64_t>(got);
    state_->bytes_read.fetch_add(static_cast<uint64_t>(got), std::memory_order_relaxed);
    count(counters().bytes_read, static_cast<uint64_t>(got));
  }
}

}  // namespace lora_mmap::safetensors
