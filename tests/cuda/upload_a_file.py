"""Uploads a whole file on one thread. Run by test_read_ahead.py: library, file, bytes, where standard error goes."""

import os
import sys

import bare_package  # noqa: F401
from fake_driver import FakeCuda, bytes_at

from lora_mmap import _C

library, path, nbytes, log = sys.argv[1:]
fake = FakeCuda(library)
stream = fake.stream()
to = fake.alloc(int(nbytes), stream)
file = _C.File(path)
os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
_C.cuda_upload(0, stream, [(file, None, 0, 0, int(nbytes), to)], None, 1)
assert bytes_at(to, int(nbytes)) == bytes(int(nbytes))
