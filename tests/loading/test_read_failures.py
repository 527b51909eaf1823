"""What the system may do to a loader's reads: EIO, EINTR, short counts, other disks."""

import pytest
import torch
from faulty_reads import build_faulty_reads
from other_process import run_python
from safetensors.torch import save_file

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
    """Runs a script with faulty reads; returns what it prints."""
    library = build_faulty_reads(tmp_path_factory.mktemp("faulty"))

    def run(script, *arguments, **variables):
        done = run_python(script, *arguments, LD_PRELOAD=library, **variables)
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
@pytest.mark.parametrize("fault", [{"FAULT_SHORT": "700"}, {"FAULT_EINTR": "1"}], ids=["short", "eintr"])
def test_interrupted_and_short_reads_are_continued(faulty, path, framework, fault):
    assert faulty(LOAD, path, framework, "pread", **fault) == "True True 6"


@pytest.mark.parametrize("framework", ["pt", "np"])
def test_an_input_output_error_names_file_and_tensor(faulty, path, framework):
    assert faulty(LOAD, path, framework, "pread", FAULT_EIO="3000") == "EIO True True"


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
