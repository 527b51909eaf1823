"""Events, and the bytes that are read back behind them."""

import pytest
from fake_driver import bytes_at

from lora_mmap import _C
from lora_mmap.errors import ArgumentError


def test_an_event_is_ready_when_its_stream_has_passed_it(fake_cuda):
    fake_cuda.mode("lazy")
    stream = fake_cuda.stream()
    memory = fake_cuda.alloc(64, stream)
    fake_cuda.fill(stream, memory, 5, 64)
    event = _C.cuda_event(0, stream)
    assert not event.ready()
    event.wait()
    assert event.ready()
    assert bytes_at(memory, 64) == b"\5" * 64


def test_an_event_may_go_before_its_stream_gets_there(fake_cuda):
    fake_cuda.mode("lazy")
    stream, other = fake_cuda.stream(), fake_cuda.stream(device=1)
    memory = fake_cuda.alloc(64, stream)
    fake_cuda.fill(stream, memory, 5, 64)
    event = _C.cuda_event(0, stream)
    _C.cuda_wait(1, other, event)
    del event
    fake_cuda.synchronize(other, device=1)
    assert bytes_at(memory, 64) == b"\5" * 64


def test_elapsed_time(fake_cuda):
    stream = fake_cuda.stream()
    begin, end = (_C.cuda_event(0, stream, timing=True) for _ in range(2))
    assert end.elapsed_ms(begin) >= 0
    for other in (_C.cuda_event(0, stream), _C.cuda_event(1, fake_cuda.stream(device=1), timing=True)):
        with pytest.raises(ArgumentError, match="timing=True"):
            end.elapsed_ms(other)


@pytest.mark.parametrize("mode", ["eager", "lazy", "random"])
def test_read_back(fake_cuda, mode):
    fake_cuda.mode(mode, 4)
    stream = fake_cuda.stream()
    memory = fake_cuda.alloc(10_000, stream)
    pending = []
    for value in range(5):
        fake_cuda.fill(stream, memory, value, 10_000)
        pending.append(_C.CudaReadBack(0, stream, memory + value, 100 * value))
    for value, read_back in enumerate(pending):
        assert read_back.wait() == bytes([value]) * 100 * value
        assert read_back.ready()
        assert read_back.wait() == bytes([value]) * 100 * value


def test_read_back_pins_no_more_than_are_in_flight(fake_cuda):
    stream = fake_cuda.stream()
    memory = fake_cuda.alloc(4096, stream)
    for _ in range(10):
        _C.CudaReadBack(0, stream, memory, 4096).wait()
    assert fake_cuda.calls["cuMemHostAlloc"] == 1
    assert _C.cuda_pinned_nbytes() == 4096


def test_a_read_back_that_nobody_waits_for(fake_cuda):
    fake_cuda.mode("lazy")
    stream = fake_cuda.stream()
    memory = fake_cuda.alloc(4096, stream)
    fake_cuda.fill(stream, memory, 1, 4096)
    del_me = _C.CudaReadBack(0, stream, memory, 4096)
    assert not del_me.ready()
    del del_me
    fake_cuda.fill(stream, memory, 2, 4096)
    assert _C.CudaReadBack(0, stream, memory, 4096).wait() == b"\2" * 4096  # in another buffer
    assert fake_cuda.calls["cuMemHostAlloc"] == 2


def test_clear_waits_for_a_read_back_in_flight(fake_cuda):
    fake_cuda.mode("lazy")
    stream = fake_cuda.stream()
    memory = fake_cuda.alloc(4096, stream)
    _C.CudaReadBack(0, stream, memory, 4096)
    assert fake_cuda.counts["pending"] > 0
    assert _C.cuda_clear(0) == 4096
    assert fake_cuda.counts["pending"] == 0


def test_the_default_stream_waits_for_blocking_streams_only(fake_cuda):
    fake_cuda.mode("lazy")
    blocking, other = fake_cuda.stream(non_blocking=False), fake_cuda.stream()
    memory = fake_cuda.alloc(2, blocking)
    fake_cuda.fill(blocking, memory, 7, 1)
    fake_cuda.fill(other, memory + 1, 7, 1)
    assert _C.CudaReadBack(0, 0, memory, 2).wait() == b"\7\xdb"
    fake_cuda.synchronize(other)
