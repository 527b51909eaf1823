"""Cold files are asked for ahead of the readers, warm ones are left alone. A preloaded shim plays the page cache."""

import shutil
import subprocess
from pathlib import Path

import pytest
from fresh_process import run_program

MIB = 1 << 20
SIZE = 30 * MIB


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("no C compiler to build the shim with")
    source, shim = Path(__file__).with_name("read_ahead_shim.c"), tmp_path_factory.mktemp("shim") / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True, capture_output=True)
    return shim


def events_of(shim, cache, fake_cuda_folder, tmp_path):
    path, log = tmp_path / "x.bin", tmp_path / "log"
    path.write_bytes(bytes(SIZE))
    library = fake_cuda_folder / "libcuda.so.1"
    program = Path(__file__).with_name("upload_a_file.py")
    run_program([program, library, path, SIZE, log], library, LD_PRELOAD=str(shim), CACHE=cache)
    lines = [line.split() for line in log.read_text().splitlines()]
    return [(line[0], int(line[1]), int(line[2])) for line in lines if line[0] in {"advice", "read"}]


def test_a_cold_file_is_asked_for_ahead_and_not_too_far(shim, fake_cuda_folder, tmp_path):
    events = events_of(shim, "cold", fake_cuda_folder, tmp_path)
    advised = [(at, nbytes) for kind, at, nbytes in events if kind == "advice"]
    assert advised == [(at, min(4 * MIB, SIZE - at)) for at in range(4 * MIB, SIZE, 4 * MIB)]
    reached = 0
    for kind, at, nbytes in events:
        if kind == "advice":
            reached = at + nbytes
        else:
            assert at + nbytes <= max(reached, 4 * MIB)  # asked for before it is read
            assert reached <= at + 20 * MIB  # and the slot at hand and four more at most
    assert sum(nbytes for kind, _, nbytes in events if kind == "read") == SIZE


def test_a_warm_file_is_not(shim, fake_cuda_folder, tmp_path):
    events = events_of(shim, "warm", fake_cuda_folder, tmp_path)
    assert {kind for kind, _, _ in events} == {"read"}
