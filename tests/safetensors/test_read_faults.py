"""What the kernel may do to a read: short counts, EINTR, EIO. A preloaded pread plays the faults."""

import os
import shutil
import subprocess
import sys

import pytest
from header_bytes import file_of

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

static ssize_t faulty(int fd, void *to, size_t n, off_t at) {
  static ssize_t (*real)(int, void *, size_t, off_t);
  static unsigned calls;
  const char *fault = getenv("FAULT");
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pread64");
  if (!strcmp(fault, "short") && n > 7) n = 7;
  if (!strcmp(fault, "eintr") && ++calls % 3) { errno = EINTR; return -1; }
  if (!strcmp(fault, "eio") && at >= 8) { errno = EIO; return -1; }
  return real(fd, to, n, at);
}
ssize_t pread(int fd, void *to, size_t n, off_t at) { return faulty(fd, to, n, at); }
ssize_t pread64(int fd, void *to, size_t n, off_t at) { return faulty(fd, to, n, at); }
"""

SCRIPT = """
import errno, sys
from lora_mmap import _C
file = _C.File(sys.argv[1])
try:
    header = file.read_header()
    memory = _C.Memory(5 << 20)
    _C.read_ranges([(file, header, header.header_nbytes, 1000, memory.address)], 2)
    print(header.names(), bytes(memory)[:1000] == bytes(range(250)) * 4, file.bytes_read == file.size)
except OSError as error:
    print(errno.errorcode[error.errno], file.path in str(error))
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("no C compiler to build the fault shim with")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", folder / "shim.so", folder / "shim.c", "-ldl"],
        check=True,
        capture_output=True,
    )
    return folder / "shim.so"


@pytest.mark.parametrize(
    ("fault", "outcome"), [("short", "['a'] True True"), ("eintr", "['a'] True True"), ("eio", "EIO True")]
)
def test_faults(shim, fault, outcome, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(file_of({"a": {"dtype": "U8", "shape": [1000], "data_offsets": [0, 1000]}}, bytes(range(250)) * 4))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "LD_PRELOAD": str(shim),
        "FAULT": fault,
    }
    command = [sys.executable, "-c", SCRIPT, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == outcome, done
