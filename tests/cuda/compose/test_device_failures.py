"""Whatever fails on the way, every weight keeps its bytes and nothing is left behind."""

import os
import re

import pytest
from device_models import adapter_file, differing

import lora_mmap
from lora_mmap.errors import CudaError, ReadError

OUT_OF_MEMORY = 2
# Nobody has to hear of their failure: they are asked for again, or run in destructors.
QUIET = {
    "cuCtxPopCurrent",
    "cuCtxPushCurrent",
    "cuEventDestroy",
    "cuEventQuery",
    "cuMemFreeHost",
    "cuThreadExchangeStreamCaptureMode",
}


def functions_called(fake, work):
    """The driver's functions that ``work`` calls and that can fail it, with how often."""
    before = dict(fake.calls)
    work()
    calls = {name: count - before.get(name, 0) for name, count in fake.calls.items() if name not in QUIET}
    return {name: count for name, count in calls.items() if count}


def error_of(work):
    try:
        work()
    except CudaError as error:
        return str(error)
    return "none"


def compose_anew(model, path):
    lora_mmap.clear_lora_cache()
    lora_mmap.compose(model, [(path, 0.7)])


@pytest.mark.parametrize("mode", ["eager", "lazy"])
@pytest.mark.parametrize("state", ["pristine", "composed"])
def test_every_call_of_the_driver_fails_once(models, torch_side, fake_cuda, tmp_path, sha256, mode, state):
    fake_cuda.mode(mode)
    device, host = models
    path, other = adapter_file(tmp_path, host), adapter_file(tmp_path, host, seed=8)
    if state == "composed":
        lora_mmap.compose(device, [(other, 0.3)])
    torch_side.synchronize()
    before = sha256(device)
    lora_mmap.compose(device, [(path, 0.7)])  # what is done once per process: see test_every_call_fails.py
    called = functions_called(fake_cuda, lambda: compose_anew(device, path))
    assert {"cuLaunchKernel", "cuMemcpyHtoDAsync", "cuStreamWaitEvent", "cuMemcpyDtoHAsync"} <= set(called)
    again = [(other, 0.3)] if state == "composed" else []
    for function, count in called.items():
        for nth in range(1, count + 1):
            lora_mmap.compose(device, again)
            fake_cuda.fail(nth, function, OUT_OF_MEMORY)
            error = error_of(lambda: compose_anew(device, path))
            reached = fake_cuda.failed  # how often the device is waited for depends on what came before
            fake_cuda.fail(0)
            torch_side.synchronize()
            if reached:
                assert re.search(rf"{function}.* failed .*CUDA_ERROR_OUT_OF_MEMORY", error), f"call {nth}"
                assert sha256(device) == before, f"call {nth} of {function}"
    for model in models:
        lora_mmap.compose(model, [(path, 0.7)])
    torch_side.synchronize()
    assert differing(device, host) == []


def test_a_file_that_shrinks_while_it_is_read(models, torch_side, tmp_path, sha256, monkeypatch):
    from lora_mmap.cuda import device_stream

    monkeypatch.setattr(device_stream, "WINDOW_NBYTES", 1)
    device, host = models
    path = adapter_file(tmp_path, host)
    before = sha256(device)
    load = device_stream.DeviceStream.load
    calls = []

    def shrinking(stream, window):
        calls.append(1)
        if len(calls) == 3:
            os.truncate(path, os.path.getsize(path) // 3)
        return load(stream, window)

    monkeypatch.setattr(device_stream.DeviceStream, "load", shrinking)
    with pytest.raises(ReadError, match="adapter_0"):
        lora_mmap.compose(device, [(path, 1.0)])
    torch_side.synchronize()
    assert sha256(device) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("name", ["load", "run", "seal", "send", "receive"])
def test_interrupted(models, torch_side, fake_cuda, tmp_path, sha256, monkeypatch, error, name):
    from lora_mmap.cuda import device_stream
    from lora_mmap.device_steps import DeviceSteps

    fake_cuda.mode("lazy")
    monkeypatch.setattr(device_stream, "WINDOW_NBYTES", 1)
    device, host = models
    before = sha256(device)
    owner = DeviceSteps if hasattr(DeviceSteps, name) else device_stream.DeviceStream
    original = getattr(owner, name)
    calls = []

    def failing(*arguments):
        result = original(*arguments)
        calls.append(1)
        if len(calls) == (2 if name in ("load", "run") else 1):
            raise error
        return result

    monkeypatch.setattr(owner, name, failing)
    with pytest.raises(error):
        lora_mmap.compose(device, [(adapter_file(tmp_path, host), 1.0)])
    torch_side.synchronize()
    assert sha256(device) == before


def test_during_a_capture(models, torch_side, fake_cuda, tmp_path, sha256):
    device, host = models
    before = sha256(device)
    fake_cuda.capture(torch_side.streams[0], True)
    try:
        with pytest.raises(CudaError, match="captur"):
            lora_mmap.compose(device, [(adapter_file(tmp_path, host), 1.0)])
    finally:
        fake_cuda.capture(torch_side.streams[0], False)
    assert sha256(device) == before
