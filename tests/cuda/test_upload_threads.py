"""Several uploads at once: from several threads, to two devices, on fewer slots than workers."""

import threading

import pytest
from fake_driver import bytes_at

from lora_mmap import _C
from lora_mmap.errors import CudaError

MIB = 1 << 20


def run_all(work, arguments):
    failures = []

    def guarded(*args):
        try:
            work(*args)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=args) for args in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive()
    if failures:
        raise failures[0]


@pytest.mark.parametrize("mode", ["eager", "lazy", "random"])
def test_six_threads_and_two_devices(fake_cuda, path, content, mode):
    fake_cuda.mode(mode, 9)

    def work(number):
        device = number % 2
        stream = fake_cuda.stream(device)
        for turn in range(3):
            nbytes = (5 + 2 * number) * MIB + number
            offset = turn * MIB + number
            to = fake_cuda.alloc(nbytes, stream, device)
            after = _C.cuda_event(device, stream)
            _C.cuda_upload(device, stream, [(_C.File(path), None, offset, 0, nbytes, to)], after, 3)
            fake_cuda.synchronize(stream, device)
            assert bytes_at(to, nbytes) == content[offset : offset + nbytes]
            fake_cuda.free(to)

    run_all(work, [(number,) for number in range(6)])
    assert _C.cuda_pinned_nbytes() <= 2 * 32 * MIB
    assert fake_cuda.violations == []


def test_one_of_them_fails(fake_cuda, path, content):
    fake_cuda.mode("random", 2)
    fake_cuda.fail(7, "cuMemcpyHtoDAsync")
    outcomes = []

    def work(number):
        stream = fake_cuda.stream()
        to = fake_cuda.alloc(12 * MIB, stream)
        try:
            _C.cuda_upload(0, stream, [(_C.File(path), None, number, 0, 12 * MIB, to)], None, 3)
        except CudaError:
            outcomes.append("failed")
        else:
            fake_cuda.synchronize(stream)
            assert bytes_at(to, 12 * MIB) == content[number : number + 12 * MIB]
            outcomes.append("done")
        fake_cuda.free(to)

    run_all(work, [(number,) for number in range(4)])
    assert sorted(outcomes) == ["done", "done", "done", "failed"]


def test_a_caller_s_context_is_current_again_afterwards(fake_cuda, path):
    stream = fake_cuda.stream(device=1)
    to = fake_cuda.alloc(64, stream, device=1)
    with fake_cuda.current(0):
        before = fake_cuda.context()
        _C.cuda_upload(1, stream, [(_C.File(path), None, 0, 0, 64, to)], None, 1)
        with pytest.raises(CudaError):
            _C.cuda_upload(1, stream + 8, [(_C.File(path), None, 0, 0, 64, to)], None, 1)
        assert fake_cuda.context() == before
        assert fake_cuda.context_depth() == 1


def test_a_stream_of_another_device_is_refused(fake_cuda, path):
    stream = fake_cuda.stream(device=1)
    there = fake_cuda.alloc(64, stream, device=1)
    for call in (
        lambda: _C.cuda_upload(0, stream, [(_C.File(path), None, 0, 0, 64, there)], None, 1),
        lambda: _C.cuda_event(0, stream),
        lambda: _C.CudaReadBack(0, stream, there, 64),
        lambda: _C.cuda_prepare(0, stream, False),
    ):
        with pytest.raises(CudaError, match="on cuda:0: CUDA_ERROR_INVALID_HANDLE"):
            call()
