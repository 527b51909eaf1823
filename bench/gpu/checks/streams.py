"""CUDA's own rules: order with streams, nothing waits that need not, graphs keep working, captures are refused."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import lora_mmap
from lora_mmap.errors import FusionOverflowError, LoraMmapError

from .. import small_model
from .check import Check, Setting, fused_on_cpu, require_bytes

# Clock ticks of a kernel that does nothing but take its time: about half a second.
_LONG_TICKS = 1_000_000_000
_GRAPHED = "aligned"


def _non_blocking(setting: Setting) -> str:
    """A kernel of half a second is queued first: a call that waits for the device returns after it."""
    model = small_model.build(setting.device)
    chosen = setting.adapters[:1]
    lora_mmap.compose(model, small_model.entries(chosen))  # the first call loads kernels and pins memory
    lora_mmap.reset(model)
    torch.cuda.synchronize(setting.device)
    sleep: Callable[[int], None] = torch.cuda._sleep
    sleep(_LONG_TICKS)
    begin = time.perf_counter()
    report = lora_mmap.compose(model, small_model.entries(chosen), non_blocking=True)
    seconds = time.perf_counter() - begin
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]
    done.record()
    early, pending = not done.query(), report.is_pending  # type: ignore[no-untyped-call]
    report.wait()
    waited = time.perf_counter() - begin
    torch.cuda.synchronize(setting.device)
    require_bytes(model, fused_on_cpu(chosen), "after waiting")
    if not early or not pending:
        raise AssertionError(
            f"the call took {seconds * 1e3:.0f} ms of {waited * 1e3:.0f} ms; device busy when it returned: {early}, "
            f"report pending: {pending}"
        )
    if report.is_pending or not report:
        raise AssertionError("the report is still pending, or empty, after wait()")
    return f"the call took {seconds * 1e3:.1f} ms while the device was busy for {waited * 1e3:.0f} ms; bytes as ordered"


def _pending_overflow(setting: Setting) -> str:
    model = small_model.build(setting.device)
    lora_mmap.compose(model, small_model.entries(setting.adapters[:1]))
    before = small_model.stored_bytes(model)
    huge = small_model.make_adapter(None, ["fc_f16"], 4, torch.float16, 1.0, 9)
    assert isinstance(huge.source, dict)
    for factor in ("fc_f16.lora_A.weight", "fc_f16.lora_B.weight"):
        huge.source[factor].fill_(60000)
    report = lora_mmap.compose(model, small_model.entries([huge]), non_blocking=True)
    try:
        report.wait()
    except FusionOverflowError:
        torch.cuda.synchronize(setting.device)
        require_bytes(model, before, "after a pending overflow")
        lora_mmap.reset(model)
        return "raised by wait(), every byte as before"
    raise AssertionError("wait() accepted a result that is not finite")


def _other_stream(setting: Setting) -> str:
    """What is submitted to the same stream, before and after, is in order with it."""
    model = small_model.build(setting.device)
    weight = _weight(model)
    pristine = weight.detach().clone()
    stream = _new_stream(setting)
    torch.cuda.synchronize(setting.device)
    with torch.cuda.stream(stream):
        weight.fill_(7)
        weight.copy_(pristine)
        report = lora_mmap.compose(model, small_model.entries(setting.adapters), non_blocking=True)
        seen = weight.detach().clone()
        report.wait()
    torch.cuda.synchronize(setting.device)
    require_bytes(model, fused_on_cpu(setting.adapters), "on another stream")
    if not torch.equal(seen, weight):
        raise AssertionError("a copy submitted after the call saw other weights")
    with torch.cuda.stream(stream):
        lora_mmap.reset(model)
        again = weight.detach().clone()
    torch.cuda.synchronize(setting.device)
    if not torch.equal(again, pristine):
        raise AssertionError("a copy submitted after reset saw other weights")
    return "in order with what was submitted before and after; bytes as on the default stream"


def _graph(setting: Setting) -> str:
    """A graph that reads a weight, captured before the composition, reads the new one when replayed."""
    model = small_model.build(setting.device)
    layer = model.get_submodule(_GRAPHED)
    address = _weight(model).data_ptr()
    inputs = torch.randn(8, _weight(model).shape[1], device=setting.device).to(_weight(model).dtype)
    stream = _new_stream(setting)
    stream.wait_stream(torch.cuda.current_stream(setting.device))
    with torch.cuda.stream(stream), torch.no_grad():
        layer(inputs)  # libraries set themselves up outside of a capture
    torch.cuda.current_stream(setting.device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        output = layer(inputs)

    def replayed() -> Tensor:
        graph.replay()
        torch.cuda.synchronize(setting.device)
        seen: Tensor = output.detach().float().clone()
        return seen

    before = replayed()
    lora_mmap.compose(model, small_model.entries(setting.adapters))
    with torch.no_grad():
        expected = layer(inputs).float()
    after = replayed()
    lora_mmap.reset(model)
    back = replayed()
    if _weight(model).data_ptr() != address:
        raise AssertionError("the weight moved")
    if not torch.allclose(after, expected, rtol=2e-2, atol=2e-2 * float(expected.abs().max())):
        raise AssertionError("the replay does not use the fused weight")
    if torch.equal(after, before) or not torch.equal(back, before):
        raise AssertionError("the replay before, during and after the composition: not different, or not back")
    return "replays use the fused weight, and the pristine one after reset"


def _capture(setting: Setting) -> str:
    """Refused with CudaError; the capture itself stays good."""
    model = small_model.build(setting.device)
    pristine = small_model.stored_bytes(model)
    values = torch.ones(16, device=setting.device)
    refused: Exception | None = None
    torch.cuda.synchronize(setting.device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        values.mul_(2)
        try:
            lora_mmap.compose(model, small_model.entries(setting.adapters))
        except Exception as error:
            refused = error
    graph.replay()
    torch.cuda.synchronize(setting.device)
    require_bytes(model, pristine, "after a refused capture")
    if refused is None or not isinstance(refused, LoraMmapError) or type(refused).__name__ != "CudaError":
        raise AssertionError(f"expected a CudaError, got {refused!r}")
    if values[0].item() != 2:
        raise AssertionError("the capture did not survive")
    lora_mmap.compose(model, small_model.entries(setting.adapters))
    require_bytes(model, fused_on_cpu(setting.adapters), "composed afterwards")
    return f"refused ({str(refused)[:80]}), the capture survived, weights untouched"


def _clear(setting: Setting) -> str:
    """Pinned memory is given back, and made again when it is needed."""
    model = small_model.build(setting.device)
    report = lora_mmap.compose(model, small_model.entries(setting.adapters))
    freed = lora_mmap.clear_lora_cache()
    if not freed.get("pinned"):
        raise AssertionError(f"nothing was freed: {freed}; the report says {report.memory}")
    lora_mmap.reset(model)
    lora_mmap.compose(model, small_model.entries(setting.adapters))
    require_bytes(model, fused_on_cpu(setting.adapters), "after clearing")
    return f"{freed['pinned'] >> 20} MiB of pinned memory freed; the next composition has the same bytes"


def _new_stream(setting: Setting) -> torch.cuda.Stream:
    stream: torch.cuda.Stream = torch.cuda.Stream(setting.device)  # type: ignore[no-untyped-call]
    return stream


def _weight(model: nn.Module) -> Tensor:
    weight = model.get_submodule(_GRAPHED).weight
    assert isinstance(weight, Tensor)
    return weight


CHECKS = (
    Check("non_blocking returns before the device is done", _non_blocking, needs_cuda=True),
    Check("non_blocking: overflow found later", _pending_overflow, needs_cuda=True),
    Check("another stream", _other_stream, needs_cuda=True),
    Check("CUDA graph", _graph, needs_cuda=True),
    Check("clear_lora_cache", _clear, needs_cuda=True),
    Check("stream capture is refused", _capture, needs_cuda=True),
)
