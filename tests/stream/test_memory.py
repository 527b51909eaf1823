"""Anonymous memory that really goes back to the system."""

import gc
import os

import numpy as np
import pytest

from lora_mmap import _C

MIB = 1 << 20


def resident_nbytes():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize("hugepages", [False, True])
def test_freeing_lowers_the_footprint(hugepages):
    before = resident_nbytes()
    memory = _C.Memory(64 * MIB, hugepages)
    np.frombuffer(memory, dtype=np.uint8)[:] = 1
    gc.collect()
    assert resident_nbytes() - before > 60 * MIB
    memory.free()
    assert resident_nbytes() - before < 16 * MIB
    memory.free()
    assert memory.nbytes == memory.address == 0


def test_dropping_frees_as_well():
    before = resident_nbytes()
    memory = _C.Memory(64 * MIB)
    np.frombuffer(memory, dtype=np.uint8)[:] = 1
    del memory
    gc.collect()
    assert resident_nbytes() - before < 16 * MIB


def test_zero_filled_writable_and_page_aligned():
    memory = _C.Memory(10_000)
    assert memory.address % os.sysconf("SC_PAGESIZE") == 0
    assert bytes(memory) == bytes(10_000)
    view = memoryview(memory)
    view[9_999] = 7
    assert bytes(memory)[-1] == 7
    assert not view.readonly


def test_free_refuses_while_a_view_is_alive():
    memory = _C.Memory(100)
    view = memoryview(memory)
    with pytest.raises(BufferError, match="views"):
        memory.free()
    view[0] = 1
    view.release()
    memory.free()


def test_views_keep_the_memory_alive():
    array = np.frombuffer(_C.Memory(MIB), dtype=np.float32)
    gc.collect()
    assert not array.any()


def test_nothing():
    memory = _C.Memory(0)
    assert memory.nbytes == 0
    assert bytes(memory) == b""
    memory.free()


@pytest.mark.parametrize("nbytes", [2**62, 2**64 - 1])
def test_more_than_there_is(nbytes):
    with pytest.raises(MemoryError):
        _C.Memory(nbytes)
