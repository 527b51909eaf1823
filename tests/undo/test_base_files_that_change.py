"""A base that is truncated, rewritten or replaced while it is open, and what the system may do to a read."""

import os

import pytest
import torch
from base_values import Beside, bits, random_bits
from faulty_reads import build_faulty_reads
from other_process import run_python
from safetensors.torch import save_file

from lora_mmap.errors import ClosedError, ReadError


def truncated(path, values):
    os.truncate(path, os.path.getsize(path) - 100)


def emptied(path, values):
    os.truncate(path, 0)


def grown(path, values):
    with open(path, "ab") as file:
        file.write(b"more")


def rewritten(path, values):
    """In place and at its old size; the clock of the file system may not have moved on since it was made."""
    with open(path, "r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"\1" * 8)
    os.utime(path, ns=(1, 1))


CHANGES = [truncated, emptied, grown, rewritten]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("threads", [1, 3])
def test_a_change_is_an_error(change, threads, tmp_path):
    values = random_bits(800, 1500, dtype=torch.float16)
    file = Beside(tmp_path, values)
    weight = values.clone()
    assert file.equals(weight, threads)
    change(file.path, values)
    with pytest.raises(ReadError, match=r"base\.safetensors: the file"):
        file.equals(weight, threads)
    with pytest.raises(ReadError, match=r"base\.safetensors: the file"):
        file.read(torch.zeros_like(weight), threads)
    assert torch.equal(bits(weight), bits(values))


def test_what_replaces_the_file_at_its_path_does_not_count(tmp_path):
    values = random_bits(80, 150, dtype=torch.float16)
    file = Beside(tmp_path, values)
    (tmp_path / "new").write_bytes(b"something else")
    os.replace(tmp_path / "new", file.path)
    assert file.equals(values)
    os.unlink(file.path)
    assert file.equals(values)


def test_a_closed_file(tmp_path):
    values = random_bits(8, 15, dtype=torch.float16)
    file = Beside(tmp_path, values)
    file.source.close()
    for call in (file.equals, file.read):
        with pytest.raises(ClosedError):
            call(values)


SCRIPT = """
import errno, sys
import numpy as np
from lora_mmap import _C

file = _C.File(sys.argv[1])
header = file.read_header()
weight = np.full(300 * 700, 7, np.uint16)

def item(strides):
    return (file, header, header.header_nbytes, "F16", *strides, 0, weight.ctypes.data, 300, 700, 700, 1, "F16")

try:
    for strides in ((700, 1), (1, 300)):
        _C.read_converted([item(strides)], 2)
        print(weight.sum(dtype=np.int64), *_C.equals_file([item(strides)] * 2, 2))
except OSError as error:
    print(errno.errorcode[error.errno], file.path in str(error))
"""


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ({"FAULT_SHORT": "70007"}, ["True True"] * 2),
        ({"FAULT_EINTR": "1"}, ["True True"] * 2),
        ({"FAULT_EIO": "9"}, ["EIO True"]),
    ],
    ids=["short", "eintr", "eio"],
)
def test_what_the_system_may_do_to_a_read(fault, outcome, tmp_path):
    values = random_bits(300, 700, dtype=torch.float16)
    path = tmp_path / "alone.safetensors"
    save_file({"a": values}, path)
    library = build_faulty_reads(tmp_path)
    done = run_python(SCRIPT, path, LD_PRELOAD=library, **fault)
    total = (bits(values).long() & 0xFFFF).sum().item()
    expected = [line if line.startswith("EIO") else f"{total} {line}" for line in outcome]
    assert done.stdout.splitlines() == expected, done
