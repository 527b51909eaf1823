"""Many ranges of files into memory, on one thread and on several."""

import itertools
import os

import numpy as np
import pytest

from lora_mmap import _C
from lora_mmap.errors import ArgumentError, ClosedError, ReadError

MIB = 1 << 20


@pytest.fixture(scope="module")
def content():
    return np.random.default_rng(7).integers(0, 256, 9 * MIB + 123, dtype=np.uint8)


@pytest.fixture
def path(tmp_path, content):
    path = tmp_path / "x.bin"
    content.tofile(path)
    return path


def array_of(memory):
    return np.frombuffer(memory, dtype=np.uint8)


@pytest.mark.parametrize("threads", [0, 1, 2, 5, 64])
def test_large_and_small_requests(path, content, threads):
    memory = _C.Memory(len(content))
    cuts = [0, 1, 1, 4097, 3 * MIB + 5, 8 * MIB, len(content)]
    with _C.File(path) as file:
        requests = [(file, None, a, b - a, memory.address + a) for a, b in itertools.pairwise(cuts)]
        _C.read_ranges(requests, threads)
        assert file.bytes_read == len(content)
    assert np.array_equal(array_of(memory), content)


def test_several_files_at_once(path, content, tmp_path):
    second = tmp_path / "second.bin"
    content[::-1].tofile(second)
    memory = _C.Memory(2 * len(content))
    half = memory.address + len(content)
    _C.read_ranges(
        [
            (_C.File(second), None, 0, len(content), half),
            (_C.File(path), None, 0, len(content), memory.address),
        ],
        threads=3,
    )
    assert np.array_equal(array_of(memory), np.concatenate([content, content[::-1]]))


def test_a_staging_plan_is_read_as_planned(path, content):
    wanted = [(5 * MIB, 100), (10, 50), (70, 30), (5 * MIB + 150, 7), (200, 1)]
    spans, positions, nbytes = _C.plan_staging(wanted, [(180, 5)], 64, 256)
    memory = _C.Memory(nbytes)
    file = _C.File(path)
    _C.read_ranges([(file, None, offset, length, memory.address + at) for offset, length, at in spans])
    staged = array_of(memory)
    for (offset, length), at in zip(wanted, positions, strict=True):
        assert np.array_equal(staged[at : at + length], content[offset : offset + length])
    assert len(spans) == 3
    assert file.bytes_read == sum(length for _, length, _ in spans)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("nbytes", [1000, 9 * MIB])
def test_truncation_is_an_exception(path, threads, nbytes):
    memory = _C.Memory(nbytes)
    with _C.File(path) as file:
        os.truncate(path, nbytes // 2)
        with pytest.raises(ReadError, match="truncated after it was opened"):
            _C.read_ranges([(file, None, 0, nbytes, memory.address)], threads)
        os.truncate(path, nbytes)
        _C.read_ranges([(file, None, 0, nbytes, memory.address)], threads)  # no thread is left behind


def test_closed_file(path):
    memory = _C.Memory(8 * MIB)
    file = _C.File(path)
    file.close()
    with pytest.raises(ClosedError):
        _C.read_ranges([(file, None, 0, 8 * MIB, memory.address)], 4)


def test_impossible_requests(path, content):
    memory = _C.Memory(8)
    with _C.File(path) as file:
        for request in [
            (file, None, 0, 2**64 - 1, memory.address),
            (file, None, len(content), 1, memory.address),
            (file, None, 0, 1, 0),
            (None, None, 0, 1, memory.address),
        ]:
            with pytest.raises(ArgumentError):
                _C.read_ranges([request], 2)
        _C.read_ranges([], 2)
        _C.read_ranges([(file, None, 0, 0, 0)], 2)
        assert file.bytes_read == 0
