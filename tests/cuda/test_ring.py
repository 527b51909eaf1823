"""The pinned ring: no larger than it says, no pinning per call, freed when asked."""

import threading

import numpy as np
import pytest
from fake_driver import bytes_at

from lora_mmap import _C
from lora_mmap.errors import CudaError

MIB = 1 << 20


def upload(stream, path, to, nbytes, threads=2, device=0):
    _C.cuda_upload(device, stream, [(_C.File(path), None, 0, 0, nbytes, to)], None, threads)


@pytest.mark.parametrize("mode", ["eager", "lazy"])
def test_thirty_two_mib_at_most(fake_cuda, path, content, mode):
    fake_cuda.mode(mode)
    stream = fake_cuda.stream()
    to = fake_cuda.alloc(len(content), stream)
    upload(stream, path, to, len(content), threads=9)
    fake_cuda.synchronize(stream)
    assert bytes_at(to, len(content)) == content
    assert 0 < _C.cuda_pinned_nbytes() <= 32 * MIB
    assert fake_cuda.counts["pinned_nbytes"] == _C.cuda_pinned_nbytes()
    assert fake_cuda.counts["pinned"] <= 8


def test_slots_are_pinned_one_by_one_and_once(fake_cuda, path):
    stream = fake_cuda.stream()
    to = fake_cuda.alloc(8 * MIB, stream)
    upload(stream, path, to, 100)
    assert _C.cuda_pinned_nbytes() == 4 * MIB
    for _ in range(20):
        upload(stream, path, to, 8 * MIB, threads=1)
    assert fake_cuda.calls["cuMemHostAlloc"] == 1  # eager copies have always ended when the next slot is needed
    assert fake_cuda.calls["cuEventCreate"] == 1 + 21  # the slot's, and one an upload for its consumer


def test_clear(fake_cuda, path, content):
    fake_cuda.mode("lazy")
    stream = fake_cuda.stream()
    to = fake_cuda.alloc(40 * MIB, stream)
    upload(stream, path, to, 40 * MIB)
    pinned = _C.cuda_pinned_nbytes()
    assert _C.cuda_clear(0) == pinned == 32 * MIB
    assert _C.cuda_pinned_nbytes() == 0
    assert bytes_at(to, 40 * MIB) == content[: 40 * MIB]  # it waited for the copies
    assert _C.cuda_clear(0) == 0
    upload(stream, path, to, 40 * MIB)
    assert _C.cuda_clear(0) == 32 * MIB


def test_clear_of_a_device_nobody_used():
    assert _C.cuda_clear(57) == 0
    assert _C.cuda_clear(-1) == 0


def test_two_gib_are_worth_larger_slots(fake_cuda):
    """The same 64 MiB of the device over and over, so that the test needs no 2 GiB."""
    stream = fake_cuda.stream()
    source = np.arange(16 * MIB, dtype=np.uint32)
    to = fake_cuda.alloc(source.nbytes, stream)
    upload_small = [(None, None, 0, source.ctypes.data, MIB, to)]
    _C.cuda_upload(0, stream, upload_small, None, 1)
    assert _C.cuda_pinned_nbytes() == 4 * MIB
    before = _C.counters()["copies_issued"]
    _C.cuda_upload(0, stream, [(None, None, 0, source.ctypes.data, source.nbytes, to)] * 32, None, 2)
    fake_cuda.synchronize(stream)
    assert bytes_at(to, source.nbytes) == source.tobytes()
    assert _C.counters()["copies_issued"] - before == 32 * 4
    assert 16 * MIB <= _C.cuda_pinned_nbytes() <= 128 * MIB
    _C.cuda_upload(0, stream, upload_small, None, 1)  # takes what is there
    assert _C.cuda_pinned_nbytes() >= 16 * MIB


def test_no_memory_to_pin(fake_cuda, path):
    stream = fake_cuda.stream()
    to = fake_cuda.alloc(64, stream)
    fake_cuda.fail(1, "cuMemHostAlloc", code=2)
    with pytest.raises(CudaError, match=r"\[cuda_upload\] cuMemHostAlloc failed on cuda:0: CUDA_ERROR_OUT_OF_MEMORY"):
        upload(stream, path, to, 64)
    upload(stream, path, to, 64)


def test_clearing_while_others_upload(fake_cuda, path, content):
    fake_cuda.mode("random", 1)
    wrong = []
    stop = threading.Event()

    def clear():
        while not stop.is_set():
            _C.cuda_clear(0)

    def work(nbytes):
        stream = fake_cuda.stream()
        to = fake_cuda.alloc(nbytes, stream)
        for _ in range(5):
            upload(stream, path, to, nbytes)
            fake_cuda.synchronize(stream)
            if bytes_at(to, nbytes) != content[:nbytes]:
                wrong.append(nbytes)

    clearing = threading.Thread(target=clear)
    clearing.start()
    workers = [threading.Thread(target=work, args=(nbytes,)) for nbytes in (9 * MIB, 100, 5 * MIB + 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
        assert not worker.is_alive()
    stop.set()
    clearing.join(timeout=60)
    assert not clearing.is_alive()
    assert wrong == []
