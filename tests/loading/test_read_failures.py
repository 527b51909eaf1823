"""What the system may do to a loader's reads, played by a preloaded library: EIO, EINTR, short counts, other disks."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/vfs.h>

static int is(const char *fault) { const char *f = getenv("FAULT"); return f && !strcmp(f, fault); }

static int fails(off_t at) {
  static unsigned calls;
  if (is("eintr") && ++calls % 3) { errno = EINTR; return 1; }
  if (is("eio") && at >= 3000) { errno = EIO; return 1; }
  return 0;
}

static ssize_t one(int fd, void *to, size_t n, off_t at) {
  static ssize_t (*real)(int, void *, size_t, off_t);
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pread64");
  if (fails(at)) return -1;
  return real(fd, to, is("short") && n > 700 ? 700 : n, at);
}
static ssize_t many(int fd, const struct iovec *to, int n, off_t at) {
  static ssize_t (*real)(int, const struct iovec *, int, off_t);
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, "preadv64");
  if (fails(at)) return -1;
  if (!is("short")) return real(fd, to, n, at);
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

LOAD = """
import errno, sys, torch
import lora_mmap, lora_mmap.torch, lora_mmap.numpy
path, framework, backend = sys.argv[1:]
try:
    with lora_mmap.safe_open(path, framework, backend=backend) as file:
        loaded = file.get_tensors()
        rows = file.get_slice("c")[3:5]
    equal = all((loaded[f"{n}"] == i).all() for i, n in enumerate("abcdef"))
    print(bool(equal), bool((rows == 2).all()), len(loaded))
except OSError as error:
    print(errno.errorcode[error.errno], path in str(error), "tensor `" in str(error))
"""

BACKEND = """
import sys, lora_mmap
print(lora_mmap.safe_open(sys.argv[1], "pt")._reader.opened.backend)
"""


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """Runs a script under the shim; returns what it prints."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("no C compiler to build the shim with")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    library = folder / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "shim.c", "-ldl"], check=True)

    def run(script, *arguments, **variables):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "LD_PRELOAD": str(library)}
        command = [sys.executable, "-c", script, *map(str, arguments)]
        done = subprocess.run(command, env=environment | variables, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done
        return done.stdout.strip()

    return run


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "x.safetensors"
    sizes = {"a": (5,), "b": (300,), "c": (9, 200), "d": (), "e": (1 << 20, 2), "f": (77,)}
    save_file({name: torch.full(sizes[name], float(i)) for i, name in enumerate(sizes)}, path)
    return path


@pytest.mark.parametrize("framework", ["pt", "np"])
@pytest.mark.parametrize("fault", ["short", "eintr"])
def test_interrupted_and_short_reads_are_continued(faulty, path, framework, fault):
    assert faulty(LOAD, path, framework, "pread", FAULT=fault) == "True True 6"


@pytest.mark.parametrize("framework", ["pt", "np"])
def test_an_input_output_error_names_file_and_tensor(faulty, path, framework):
    assert faulty(LOAD, path, framework, "pread", FAULT="eio") == "EIO True True"


REMOTE = {
    "nfs": "6969",
    "fuse": "65735546",
    "9p": "1021997",
    "cifs": "FF534D42",
    "smb2": "FE534D42",
    "lustre": "BD00BD0",
}
LOCAL = {
    "ext4": "EF53",
    "xfs": "58465342",
    "btrfs": "9123683E",
    "tmpfs": "1021994",
    "overlay": "794C7630",
    "zfs": "2FC12FC1",
}


@pytest.mark.parametrize("name", REMOTE)
def test_auto_reads_where_a_page_fault_is_a_round_trip(faulty, path, name):
    assert faulty(BACKEND, path, FILE_SYSTEM=REMOTE[name]) == "pread"


@pytest.mark.parametrize("name", LOCAL)
def test_auto_maps_local_files(faulty, path, name):
    assert faulty(BACKEND, path, FILE_SYSTEM=LOCAL[name]) == "mmap"


def test_what_is_remote_loads_the_same(faulty, path):
    assert faulty(LOAD, path, "pt", "auto", FILE_SYSTEM=REMOTE["nfs"]) == "True True 6"
