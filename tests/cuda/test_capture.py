"""CUDA graphs: a stream that is captured is refused, and captures elsewhere go on."""

import pytest
from fake_driver import bytes_at

from lora_mmap import _C
from lora_mmap.errors import CudaError

MIB = 1 << 20


def everything(stream, file, memory, nbytes):
    return {
        "cuda_prepare": lambda: _C.cuda_prepare(0, stream, False),
        "cuda_upload": lambda: _C.cuda_upload(0, stream, [(file, None, 0, 0, nbytes, memory)], None, 2),
        "cuda_event": lambda: _C.cuda_event(0, stream),
        "CudaReadBack": lambda: _C.CudaReadBack(0, stream, memory, 16),
    }


@pytest.mark.parametrize("function", ["cuda_prepare", "cuda_upload", "cuda_event", "CudaReadBack", "cuda_wait"])
def test_a_captured_stream_is_refused(fake_cuda, path, function):
    stream = fake_cuda.stream()
    memory = fake_cuda.alloc(64, stream)
    event = _C.cuda_event(0, stream)
    calls = everything(stream, _C.File(path), memory, 64) | {"cuda_wait": lambda: _C.cuda_wait(0, stream, event)}
    fake_cuda.capture(stream, True)
    with pytest.raises(CudaError) as caught:
        calls[function]()
    assert str(caught.value) == (
        f"[{function}] the current stream of cuda:0 is being captured into a CUDA graph: load and fuse before the "
        "capture begins or after it ends"
    )
    fake_cuda.capture(stream, False)
    calls[function]()


def test_the_default_stream_is_refused_while_a_stream_that_waits_for_it_is_captured(fake_cuda):
    captured = fake_cuda.stream(non_blocking=False)
    fake_cuda.capture(captured, True)
    with pytest.raises(CudaError, match="captured into a CUDA graph"):
        _C.cuda_prepare(0, 0, False)


@pytest.mark.parametrize("device", [0, 1])
def test_a_capture_elsewhere_goes_on(fake_cuda, path, content, device):
    """Pinning, unpinning and asking for an event are what a capture in global mode forbids to everybody."""
    captured, stream = fake_cuda.stream(device), fake_cuda.stream()
    memory = fake_cuda.alloc(40 * MIB, stream)
    _C.cuda_clear(0)
    fake_cuda.capture(captured, True, device)
    for call in everything(stream, _C.File(path), memory, 40 * MIB).values():
        call()
    assert _C.CudaReadBack(0, stream, memory, 16).wait() == content[:16]
    assert _C.cuda_event(0, stream).ready()
    assert _C.cuda_clear(0) > 0
    assert fake_cuda.violations == []
    assert bytes_at(memory, 40 * MIB) == content[: 40 * MIB]
    fake_cuda.capture(captured, False, device)
