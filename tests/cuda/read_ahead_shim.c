// Preloaded by test_read_ahead.py: says that the page cache is cold or warm (CACHE), and writes down on
// standard error what is asked for ahead and what is read.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>

static ssize_t probe(void) {
  if (strcmp(getenv("CACHE"), "cold")) return 1;
  errno = EAGAIN;
  return -1;
}

static void write_down(const char* what, off_t at, off_t nbytes) {
  dprintf(2, "%s %lld %lld\n", what, (long long)at, (long long)nbytes);
}

static ssize_t read_at(int fd, void* to, size_t nbytes, off_t at) {
  static ssize_t (*real)(int, void*, size_t, off_t);
  if (!real) *(void**)&real = dlsym(RTLD_NEXT, "pread64");
  if (nbytes > 4096) write_down("read", at, (off_t)nbytes);  // less is Python's own
  return real(fd, to, nbytes, at);
}

#define PROBE(name)                                                          \
  ssize_t name(int fd, const struct iovec* to, int n, off_t at, int flags) { \
    return (void)fd, (void)to, (void)n, (void)at, (void)flags, probe();      \
  }
PROBE(preadv2)
PROBE(preadv64v2)

#define ADVISE(name)                                                    \
  int name(int fd, off_t at, off_t nbytes, int advice) {                \
    return (void)fd, (void)advice, write_down("advice", at, nbytes), 0; \
  }
ADVISE(posix_fadvise)
ADVISE(posix_fadvise64)

ssize_t pread(int fd, void* to, size_t nbytes, off_t at) {
  return read_at(fd, to, nbytes, at);
}
ssize_t pread64(int fd, void* to, size_t nbytes, off_t at) {
  return read_at(fd, to, nbytes, at);
}
