"""What the system may do to a read, played by a library to preload.

Its variables: FAULT_SHORT, the most bytes that a pread gives; FAULT_EINTR, two of three reads are interrupted;
FAULT_EIO, the offset from which reads fail; FILE_SYSTEM, the type that files claim to be on, in hexadecimal.
"""

import shutil
import subprocess

import pytest

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/vfs.h>

static int fails(off_t at) {
  static unsigned calls;
  const char *eio = getenv("FAULT_EIO");
  if (getenv("FAULT_EINTR") && ++calls % 3) { errno = EINTR; return 1; }
  if (eio && at >= atol(eio)) { errno = EIO; return 1; }
  return 0;
}

static ssize_t one(int fd, void *to, size_t n, off_t at) {
  static ssize_t (*real)(int, void *, size_t, off_t);
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pread64");
  if (fails(at)) return -1;
  const char *most = getenv("FAULT_SHORT");
  if (most && n > (size_t)atol(most)) n = atol(most);
  return real(fd, to, n, at);
}
static ssize_t many(int fd, const struct iovec *to, int n, off_t at) {
  static ssize_t (*real)(int, const struct iovec *, int, off_t);
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, "preadv64");
  if (fails(at)) return -1;
  if (!getenv("FAULT_SHORT")) return real(fd, to, n, at);
  /* ends inside the second piece, so that the rest of it has to be asked for */
  struct iovec cut[2] = {to[0], to[n > 1]};
  if (cut[1].iov_len > 3) cut[1].iov_len = 3;
  return real(fd, cut, n > 1 ? 2 : 1, at);
}
ssize_t pread(int fd, void *to, size_t n, off_t at) { return one(fd, to, n, at); }
ssize_t pread64(int fd, void *to, size_t n, off_t at) { return one(fd, to, n, at); }
ssize_t preadv(int fd, const struct iovec *to, int n, off_t at) { return many(fd, to, n, at); }
ssize_t preadv64(int fd, const struct iovec *to, int n, off_t at) { return many(fd, to, n, at); }

int fstatfs(int fd, struct statfs *status) {
  static int (*real)(int, struct statfs *);
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, "fstatfs64");
  int rc = real(fd, (void *)status);
  const char *type = getenv("FILE_SYSTEM");
  if (!rc && type) status->f_type = strtol(type, 0, 16);
  return rc;
}
int fstatfs64(int fd, struct statfs64 *status) { return fstatfs(fd, (struct statfs *)status); }
"""


def build_faulty_reads(folder):
    """The library's path, for LD_PRELOAD. Skips the test where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("no C compiler to build the faulty reads with")
    (folder / "faulty_reads.c").write_text(SOURCE)
    command = [compiler, "-shared", "-fPIC", "-o", "faulty_reads.so", "faulty_reads.c", "-ldl"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return str(folder / "faulty_reads.so")
