"""What the kernel may do to a read: short counts, EINTR, EIO."""

import pytest
from faulty_reads import build_faulty_reads
from header_bytes import file_of
from other_process import run_python

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
def library(tmp_path_factory):
    return build_faulty_reads(tmp_path_factory.mktemp("faulty"))


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ({"FAULT_SHORT": "7"}, "['a'] True True"),
        ({"FAULT_EINTR": "1"}, "['a'] True True"),
        ({"FAULT_EIO": "8"}, "EIO True"),
    ],
    ids=["short", "eintr", "eio"],
)
def test_faults(library, fault, outcome, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(file_of({"a": {"dtype": "U8", "shape": [1000], "data_offsets": [0, 1000]}}, bytes(range(250)) * 4))
    done = run_python(SCRIPT, path, LD_PRELOAD=library, **fault)
    assert done.stdout.strip() == outcome, done
