"""What an upload waits for, and what waits for it. The lazy driver runs nothing that nobody waits for."""

import pytest
from fake_driver import bytes_at

from lora_mmap import _C

NBYTES = 36 << 20  # more than the ring: slots are waited for while the upload goes on


def reused_memory(fake, stream):
    """Memory that was freed on the stream and handed out again, while the stream has not got to either."""
    first = fake.alloc(NBYTES, stream)
    fake.fill(stream, first, 1, NBYTES)
    fake.free(first)
    again = fake.alloc(NBYTES, stream)
    assert again == first
    return again


@pytest.mark.parametrize("mode", ["lazy", "random"])
def test_the_copies_wait_for_the_memory(fake_cuda, path, content, mode):
    fake_cuda.mode(mode, 5)
    stream = fake_cuda.stream()
    to = reused_memory(fake_cuda, stream)
    _C.cuda_upload(0, stream, [(_C.File(path), None, 0, 0, NBYTES, to)], _C.cuda_event(0, stream), 2)
    fake_cuda.synchronize(stream)
    assert bytes_at(to, NBYTES) == content[:NBYTES]


def test_the_driver_sees_copies_that_do_not_wait(fake_cuda, path, content):
    fake_cuda.mode("lazy")
    stream = fake_cuda.stream()
    to = reused_memory(fake_cuda, stream)
    _C.cuda_upload(0, stream, [(_C.File(path), None, 0, 0, NBYTES, to)], None, 2)
    fake_cuda.synchronize(stream)
    assert "before the stream that it was freed on got there" in fake_cuda.violations[0]
    assert bytes_at(to, NBYTES) != content[:NBYTES]
    fake_cuda.reset()


@pytest.mark.parametrize("mode", ["lazy", "random"])
@pytest.mark.parametrize("default_stream", [False, True])
def test_the_consumer_waits_for_the_copies(fake_cuda, path, content, mode, default_stream):
    fake_cuda.mode(mode, 3)
    allocated_on = fake_cuda.stream()
    consumer = 0 if default_stream else allocated_on
    to = fake_cuda.alloc(NBYTES, allocated_on)
    copied = fake_cuda.alloc(NBYTES, allocated_on)
    _C.cuda_upload(0, consumer, [(_C.File(path), None, 0, 0, NBYTES, to)], None, 2)
    fake_cuda.copy(consumer, copied, to, NBYTES)
    fake_cuda.synchronize(consumer)
    assert bytes_at(copied, NBYTES) == content[:NBYTES]


def test_a_stream_that_does_not_wait_sees_other_bytes(fake_cuda, path, content):
    fake_cuda.mode("lazy")
    stream, other = fake_cuda.stream(), fake_cuda.stream()
    to, copied = fake_cuda.alloc(4096, stream), fake_cuda.alloc(4096, stream)
    _C.cuda_upload(0, stream, [(_C.File(path), None, 0, 0, 4096, to)], None, 1)
    fake_cuda.copy(other, copied, to, 4096)
    fake_cuda.synchronize(other)
    assert bytes_at(copied, 4096) != content[:4096]
    event = _C.cuda_event(0, stream)
    _C.cuda_wait(0, other, event)
    fake_cuda.copy(other, copied, to, 4096)
    fake_cuda.synchronize(other)
    assert bytes_at(copied, 4096) == content[:4096]


def test_memory_freed_on_the_consumer_is_free_after_the_copies(fake_cuda, path):
    fake_cuda.mode("lazy")
    stream = fake_cuda.stream()
    to = fake_cuda.alloc(NBYTES, stream)
    _C.cuda_upload(0, stream, [(_C.File(path), None, 0, 0, NBYTES, to)], None, 2)
    fake_cuda.free(to)
    fake_cuda.synchronize(stream)
    assert fake_cuda.violations == []


def test_the_driver_sees_copies_into_memory_that_went_on_another_stream(fake_cuda, path):
    fake_cuda.mode("lazy")
    stream, other = fake_cuda.stream(), fake_cuda.stream()
    to = fake_cuda.alloc(4096, stream)
    _C.cuda_upload(0, stream, [(_C.File(path), None, 0, 0, 4096, to)], None, 1)
    fake_cuda.free(to, other)
    fake_cuda.synchronize(other)
    fake_cuda.synchronize(stream)
    assert fake_cuda.violations == ["a copy to the device uses device memory after it was freed"]
    fake_cuda.reset()
