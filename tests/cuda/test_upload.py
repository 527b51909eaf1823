"""Bytes of files and of memory to a device: the right ones, and no more copies than needed."""

import itertools
import os
import shutil

import numpy as np
import pytest
from fake_driver import bytes_at

from lora_mmap import _C
from lora_mmap.errors import ArgumentError, ClosedError, CudaError, ReadError

MIB = 1 << 20
MODES = ["eager", "lazy", "random"]


def upload(fake, requests, stream, threads=2):
    _C.cuda_upload(0, stream, requests, _C.cuda_event(0, stream), threads)
    assert fake.synchronize(stream) == 0


@pytest.mark.parametrize("threads", [1, 2, 5, 9])
@pytest.mark.parametrize("mode", MODES)
def test_one_large_range(fake_cuda, path, content, mode, threads):
    fake_cuda.mode(mode, threads)
    stream = fake_cuda.stream()
    to = fake_cuda.alloc(len(content), stream)
    file = _C.File(path)
    before = _C.counters()
    upload(fake_cuda, [(file, None, 0, 0, len(content), to)], stream, threads)
    after = _C.counters()
    assert bytes_at(to, len(content)) == content
    assert file.bytes_read == len(content)
    assert after["bytes_uploaded"] - before["bytes_uploaded"] == len(content)
    assert after["copies_issued"] - before["copies_issued"] == -(-len(content) // (4 * MIB))
    assert fake_cuda.counts["bytes_to_device"] == len(content)


def test_three_thousand_tensors_take_a_handful_of_copies(fake_cuda, path, content):
    sizes = np.random.default_rng(3).integers(1, 7000, 3000).tolist()
    stream = fake_cuda.stream()
    offsets = [0, *itertools.accumulate(sizes)]
    places = [0, *itertools.accumulate((size + 15) // 16 * 16 for size in sizes)]
    to = fake_cuda.alloc(places[-1], stream)
    file = _C.File(path)
    requests = [
        (file, None, offset, 0, size, to + at) for offset, size, at in zip(offsets, sizes, places, strict=False)
    ]
    upload(fake_cuda, requests, stream)
    for _, _, offset, _, size, address in requests:
        assert bytes_at(address, size) == content[offset : offset + size]
    assert file.bytes_read == sum(sizes)
    assert fake_cuda.calls["cuMemcpyHtoDAsync"] == -(-places[-1] // (4 * MIB))
    assert sum(sizes) <= fake_cuda.counts["bytes_to_device"] < sum(sizes) + 16 * len(sizes)


def test_gaps_on_the_device_of_sixteen_bytes_and_more_keep_their_bytes(fake_cuda, path, content):
    stream = fake_cuda.stream()
    to = fake_cuda.alloc(4096, stream)
    fake_cuda.fill(stream, to, 0xEE, 4096)
    places = [(0, 100), (100 + 15, 100), (215 + 16, 100), (1000, 0), (1000, 5), (900, 7)]
    file = _C.File(path)
    upload(fake_cuda, [(file, None, 50 * i, 0, size, to + at) for i, (at, size) in enumerate(places)], stream)
    expected = bytearray(b"\xee" * 4096)
    for i, (at, size) in enumerate(places):
        expected[at : at + size] = content[50 * i : 50 * i + size]
    got = bytearray(bytes_at(to, 4096))
    got[100:115] = expected[100:115]  # a small gap may hold anything
    assert got == expected
    assert fake_cuda.calls["cuMemcpyHtoDAsync"] == 4


@pytest.mark.parametrize("shift", [1, 2, 7])
def test_odd_offsets_and_places(fake_cuda, path, content, shift):
    fake_cuda.mode("random", shift)
    stream = fake_cuda.stream()
    size = 5 * MIB + 3
    to = fake_cuda.alloc(3 * size, stream)
    file = _C.File(path)
    requests = [(file, None, shift + i * (size + shift), 0, size, to + shift + i * size) for i in range(2)]
    upload(fake_cuda, requests, stream)
    for _, _, offset, _, _, address in requests:
        assert bytes_at(address, size) == content[offset : offset + size]


def test_files_and_memory_in_one_upload(fake_cuda, path, content):
    stream = fake_cuda.stream()
    memory = np.arange(100_000, dtype=np.uint32)
    to = fake_cuda.alloc(3 * MIB, stream)
    file = _C.File(path)
    requests = [
        (file, None, 7, 0, 1000, to),
        (None, None, 0, memory.ctypes.data, memory.nbytes, to + 1000),
        (file, None, 1007, 0, 2 * MIB, to + 1000 + memory.nbytes),
    ]
    upload(fake_cuda, requests, stream)
    expected = content[7:1007] + memory.tobytes() + content[1007 : 1007 + 2 * MIB]
    assert bytes_at(to, len(expected)) == expected
    assert fake_cuda.calls["cuMemcpyHtoDAsync"] == 1


def test_memory_may_go_when_the_call_returns(fake_cuda):
    fake_cuda.mode("lazy")
    stream = fake_cuda.stream()
    memory = np.full(100_000, 7, dtype=np.uint8)
    to = fake_cuda.alloc(memory.nbytes, stream)
    _C.cuda_upload(0, stream, [(None, None, 0, memory.ctypes.data, memory.nbytes, to)], None, 1)
    memory[:] = 9
    fake_cuda.synchronize(stream)
    assert bytes_at(to, memory.nbytes) == b"\7" * memory.nbytes


def test_nothing_to_do_asks_nothing(fake_cuda, path):
    stream = fake_cuda.stream()
    _C.cuda_prepare(0, stream, kernels=False)
    fake_cuda.reset()
    _C.cuda_upload(0, stream, [], None, 2)
    _C.cuda_upload(0, stream, [(_C.File(path), None, 0, 0, 0, 0)], None, 2)
    context = {"cuCtxPushCurrent", "cuCtxPopCurrent", "cuThreadExchangeStreamCaptureMode"}
    assert set(fake_cuda.calls) <= context


@pytest.mark.parametrize("threads", [1, 4])
def test_a_file_truncated_in_the_middle(fake_cuda, path, content, tmp_path, threads):
    fake_cuda.mode("lazy")
    cut = shutil.copy(path, tmp_path / "cut.bin")
    stream = fake_cuda.stream()
    to = fake_cuda.alloc(len(content), stream)
    file = _C.File(cut)
    os.truncate(cut, 13 * MIB)
    with pytest.raises(ReadError, match="truncated after it was opened"):
        _C.cuda_upload(0, stream, [(file, None, 0, 0, len(content), to)], None, threads)
    assert fake_cuda.counts["pending"] == 0  # drained: the memory may be freed at once
    upload(fake_cuda, [(_C.File(path), None, 0, 0, len(content), to)], stream, threads)
    assert bytes_at(to, len(content)) == content


def test_impossible_requests(fake_cuda, path, content):
    stream = fake_cuda.stream()
    to = fake_cuda.alloc(64, stream)
    file = _C.File(path)
    for request in [
        (file, None, len(content), 0, 1, to),
        (file, None, 0, 0, 2**64 - 1, to),
        (None, None, 0, 0, 1, to),
        (file, None, 0, 0, 1, 0),
        (file, None, 0, 0, 10, 2**64 - 5),
    ]:
        with pytest.raises(ArgumentError):
            _C.cuda_upload(0, stream, [(file, None, 0, 0, 8, to), request], None, 2)
    assert fake_cuda.counts["bytes_to_device"] == 0
    file.close()
    with pytest.raises(ClosedError):
        _C.cuda_upload(0, stream, [(file, None, 0, 0, 8, to)], None, 2)


def test_the_error_names_the_function_the_call_and_the_device(fake_cuda, path):
    stream = fake_cuda.stream(device=1)
    to = fake_cuda.alloc(64, stream, device=1)
    fake_cuda.fail(1, "cuMemcpyHtoDAsync")
    with pytest.raises(CudaError) as caught:
        _C.cuda_upload(1, stream, [(_C.File(path), None, 0, 0, 64, to)], None, 2)
    assert str(caught.value) == (
        "[cuda_upload] cuMemcpyHtoDAsync failed on cuda:1: CUDA_ERROR_ILLEGAL_ADDRESS "
        "(an illegal memory access was encountered)"
    )
    assert isinstance(caught.value, RuntimeError)
