"""Pinned memory that launches use in place: freed when the device is done with it, and not before."""

import ctypes
import gc
import threading

import pytest
import torch

from lora_mmap import _C
from lora_mmap.errors import CudaError

OUT_OF_MEMORY = 2
NBYTES = 8192


class Side:
    """A stream of the fake device, some of its memory, and copies between that and blocks."""

    def __init__(self, fake):
        self.fake = fake
        self.stream = fake.stream()
        self.memory = fake.alloc(NBYTES, self.stream)

    def copy(self, to, source, stream=None):
        stream = stream or self.stream
        launches = _C.CudaLaunches.copy(0, [(to, source, 1, NBYTES, 1, 1, 1, 1, 1)])
        launches.submit(stream, self.fake.alloc(launches.table_nbytes, stream))


@pytest.fixture
def side(fake_cuda):
    return Side(fake_cuda)


def view(address):
    return torch.frombuffer((ctypes.c_uint8 * NBYTES).from_address(address), dtype=torch.uint8)


def test_what_is_in_flight_ends_before_it_is_freed(side):
    block = _C.CudaPinnedBlock(0, NBYTES)
    assert block.nbytes == _C.cuda_pinned_block_nbytes() == NBYTES
    assert _C.cuda_pinned_nbytes() == 0
    view(block.address)[:] = 7
    side.fake.mode("lazy")
    side.copy(side.memory, block.address)
    assert side.fake.counts["pending"] > 0
    del block
    assert _C.cuda_pinned_block_nbytes() == 0
    side.fake.mode("eager")
    assert (view(side.memory) == 7).all()


def test_both_ends_of_a_copy_and_every_stream(side):
    source, target = _C.CudaPinnedBlock(0, NBYTES), _C.CudaPinnedBlock(0, NBYTES)
    other = side.fake.stream()
    view(source.address)[:] = 3
    side.fake.mode("lazy")
    side.copy(target.address, source.address, other)
    side.copy(side.memory, source.address)
    del source
    assert (view(target.address) == 3).all()
    assert (view(side.memory) == 3).all()


def test_one_that_nothing_uses_waits_for_nothing(side):
    used, unused = _C.CudaPinnedBlock(0, NBYTES), _C.CudaPinnedBlock(0, NBYTES)
    side.fake.mode("lazy")
    side.copy(side.memory, used.address)
    waited = side.fake.calls.get("cuEventSynchronize", 0)
    del unused
    assert side.fake.calls.get("cuEventSynchronize", 0) == waited
    assert side.fake.counts["pending"] > 0
    del used
    assert side.fake.calls["cuEventSynchronize"] == waited + 1


def test_events_do_not_pile_up(side):
    block = _C.CudaPinnedBlock(0, NBYTES)
    for _ in range(20):
        side.copy(side.memory, block.address)
    pinned_buffers = 1
    assert side.fake.counts["events"] <= 1 + pinned_buffers
    del block


@pytest.mark.parametrize("function", ["cuEventCreate", "cuEventRecord"])
def test_a_use_that_cannot_be_marked_is_waited_for(side, function):
    block = _C.CudaPinnedBlock(0, NBYTES)
    view(block.address)[:] = 5
    side.copy(side.memory, block.address)  # what is made once
    block = _C.CudaPinnedBlock(0, NBYTES)
    view(block.address)[:] = 6
    side.fake.mode("lazy")
    table_events = 1 if function == "cuEventRecord" else 0
    side.fake.fail(1 + table_events, function, OUT_OF_MEMORY)
    with pytest.raises(CudaError, match=function):
        side.copy(side.memory, block.address)
    side.fake.fail(0)
    del block
    assert (view(side.memory) == 6).all()


def test_no_memory(side):
    side.fake.fail(1, "cuMemHostAlloc", OUT_OF_MEMORY)
    with pytest.raises(CudaError, match=r"CUDA_ERROR_OUT_OF_MEMORY.*: 8192 bytes of host memory for copies of weights"):
        _C.CudaPinnedBlock(0, NBYTES)
    assert _C.cuda_pinned_block_nbytes() == 0
    with pytest.raises(CudaError, match="cuda:9"):
        _C.CudaPinnedBlock(9, NBYTES)
    assert _C.CudaPinnedBlock(0, 0).address % 16 == 0


def test_dropped_on_another_thread_without_a_context(side):
    holder = [_C.CudaPinnedBlock(0, NBYTES)]
    side.fake.mode("lazy")
    side.copy(side.memory, holder[0].address)
    thread = threading.Thread(target=holder.clear)
    thread.start()
    thread.join()
    gc.collect()
    assert side.fake.counts["pinned_nbytes"] == _C.cuda_pinned_nbytes()
