#include "safetensors/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "safetensors/contents.h"
#include "safetensors/counters.h"
#include "safetensors/descriptor.h"
#include "safetensors/file_system.h"

namespace lora_mmap::safetensors {
namespace {

// Linux moves at most 0x7ffff000 bytes per call; asking for less keeps other systems' limits out of the way.
constexpr uint64_t kMaxPread = uint64_t{1} << 30;

constexpr size_t kMaxVectors = 256;  // far below IOV_MAX, and small on the stack

[[noreturn]] void throw_os_error(int code, const std::string& path, const std::string& place = {}) {
  throw OsError(code, path,
                std::generic_category().message(code) + ": " + path + (place.empty() ? "" : ": " + place));
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
  explicit State(int fd) : descriptor(fd) {}

  Descriptor descriptor;
  std::atomic<uint64_t> bytes_read{0};
};

File::Use::Use(const File& file) : descriptor_(file.state_->descriptor) {
  if (!descriptor_.acquire()) throw Error(Fault::closed, "File is closed: " + file.path_);
}

File::Use::~Use() {
  descriptor_.release();
}

int File::Use::fd() const {
  return descriptor_.fd();
}

File::File(std::string path)
    : path_(std::move(path)), state_(std::make_unique<State>(open_read_only(path_))) {
  const struct stat status = status_of(Use(*this).fd(), path_);
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
  return state_->descriptor.closed();
}

void File::close() {
  state_->descriptor.close();
}

bool File::is_remote() const {
  return safetensors::is_remote(Use(*this).fd());
}

void File::check_unchanged(const Contents* contents) const {
  const FileIdentity now = identity_of(status_of(Use(*this).fd(), path_));
  if (now.size != identity_.size)
    throw Error(Fault::read, path_ + ": the file changed after it was opened: size expected " +
                                 std::to_string(identity_.size) + " bytes, got " + std::to_string(now.size) +
                                 (contents ? ": it now ends inside " + contents->at(now.size) : ""));
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

void File::read_exact(uint64_t offset, uint64_t nbytes, void* destination, const Contents& contents) const {
  const Piece piece{destination, nbytes};
  read_exact(offset, std::span(&piece, 1), contents);
}

void File::read_exact(uint64_t offset, std::span<const Piece> pieces, const Contents& contents) const {
  uint64_t nbytes = 0;
  for (const Piece& piece : pieces) nbytes += piece.nbytes;
  require_range(offset, nbytes);
  const Use open(*this);
  uint64_t done = 0;     // bytes of all pieces together
  size_t first = 0;      // the piece that is not full yet
  uint64_t skipped = 0;  // its bytes that are there already
  while (done < nbytes) {
    std::array<iovec, kMaxVectors> vectors;
    int used = 0;
    uint64_t room = kMaxPread;
    for (size_t i = first; i < pieces.size() && used < static_cast<int>(kMaxVectors) && room > 0; ++i) {
      const uint64_t begin = i == first ? skipped : 0;
      const uint64_t wanted = std::min(pieces[i].nbytes - begin, room);
      vectors[static_cast<size_t>(used++)] = {static_cast<char*>(pieces[i].destination) + begin, wanted};
      room -= wanted;
    }
    const auto at = static_cast<off_t>(offset + done);
    const ssize_t got = used == 1 ? ::pread(open.fd(), vectors[0].iov_base, vectors[0].iov_len, at)
                                  : ::preadv(open.fd(), vectors.data(), used, at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_os_error(errno, path_, contents.at(offset + done));
    if (got == 0)
      throw Error(Fault::read, path_ + ": expected " + std::to_string(nbytes) + " bytes at offset " +
                                   std::to_string(offset) + ", got " + std::to_string(done) +
                                   ": the file was truncated after it was opened, inside " +
                                   contents.at(offset + done));
    done += static_cast<uint64_t>(got);
    state_->bytes_read.fetch_add(static_cast<uint64_t>(got), std::memory_order_relaxed);
    count(counters().bytes_read, static_cast<uint64_t>(got));
    skipped += static_cast<uint64_t>(got);
    while (first < pieces.size() && skipped >= pieces[first].nbytes) skipped -= pieces[first++].nbytes;
  }
}

void File::will_need(uint64_t offset, uint64_t nbytes) const noexcept {
  if (offset >= size() || nbytes == 0 || closed()) return;
  nbytes = std::min(nbytes, size() - offset);
  try {
    const Use open(*this);
    // Advice walks every page even when all are in memory, which costs a few percent of reading them. Whether
    // the last byte is there costs nothing, and tells a file that was read before from one that was not.
    char byte;
    const iovec last{&byte, 1};
    const ssize_t there = ::preadv2(open.fd(), &last, 1, static_cast<off_t>(offset + nbytes - 1), RWF_NOWAIT);
    if (there != 1)
      ::posix_fadvise(open.fd(), static_cast<off_t>(offset), static_cast<off_t>(nbytes), POSIX_FADV_WILLNEED);
  } catch (const Error&) {  // closed meanwhile: the read that follows says so
  }
}

}  // namespace lora_mmap::safetensors
