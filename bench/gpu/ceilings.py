"""What the device can do at most, measured in the run that is held against it. The best of many tries, never a mean: a
noisy moment must not flatter us."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from lora_mmap import _C

from .device import free_nbytes
from .findings import Budget, Findings
from .timing import best_seconds

_MIB = 1 << 20
_PINNED_NBYTES = 256 * _MIB
_CHUNK_NBYTES = 8 * _MIB
_STREAMED_NBYTES = 4096 * _MIB
_MATRIX = 8192  # rows and columns of the matrix product that stands in for the probe where there is no GPU
_TRIES = 20
_PROBE_ROUNDS = 4096  # of 256 multiply-adds a thread: milliseconds on any device


@dataclass
class Ceilings:
    """Bytes per second, and fp32 multiply-adds as FLOP/s; None where the measurement failed.

    ``h2d``: pinned host memory to the device. ``hbm``: in place, bytes read plus bytes written.
    """

    h2d: float | None = None
    hbm: float | None = None
    ffma: float | None = None
    ffma_by: str = ""

    def to_dict(self) -> dict[str, float | str | None]:
        return {
            "h2d_bytes_per_second": self.h2d,
            "hbm_bytes_per_second": self.hbm,
            "ffma_flops": self.ffma,
            "ffma_by": self.ffma_by,
        }


def measure(findings: Findings, device: torch.device, budget: Budget, quick: bool) -> Ceilings:
    """Every ceiling that can be measured; the others stay None and are in the findings."""
    ceilings = Ceilings()
    with findings.step("pinned host memory to device"):
        ceilings.h2d, by_chunk = _h2d(device, _PINNED_NBYTES // (4 if quick else 1))
        findings.line(
            "pinned host memory to device",
            f"{ceilings.h2d / 1e9:.1f} GB/s (in copies of {_CHUNK_NBYTES // _MIB} MiB {by_chunk / 1e9:.1f})",
        )
    with findings.step("in-place device memory bandwidth"):
        ceilings.hbm = in_place(device, _streamed_nbytes(device, quick))
        findings.line("in-place device memory bandwidth", f"{ceilings.hbm / 1e9:.0f} GB/s read plus written")
    with findings.step("fp32 multiply-adds"):
        if not budget.left:
            raise TimeoutError("the time for the ceilings was spent before")
        ceilings.ffma, ceilings.ffma_by = ffma(device, _MATRIX // (2 if quick else 1))
        findings.line("fp32 multiply-adds", f"{ceilings.ffma / 1e12:.1f} TFLOP/s by {ceilings.ffma_by}")
    return ceilings


def _h2d(device: torch.device, nbytes: int) -> tuple[float, float]:
    """The better of one copy and of copies by chunk, and the latter."""
    host = torch.ones(nbytes, dtype=torch.uint8).pin_memory()
    there = torch.empty(nbytes, dtype=torch.uint8, device=device)
    pairs = [(there[at : at + _CHUNK_NBYTES], host[at : at + _CHUNK_NBYTES]) for at in range(0, nbytes, _CHUNK_NBYTES)]

    def by_chunk() -> None:
        for target, source in pairs:
            target.copy_(source, non_blocking=True)

    whole = best_seconds(device, lambda: there.copy_(host, non_blocking=True), _TRIES)
    chunks = best_seconds(device, by_chunk, _TRIES)
    return nbytes / min(whole, chunks), nbytes / chunks


def _streamed_nbytes(device: torch.device, quick: bool) -> int:
    wanted = _STREAMED_NBYTES // (4 if quick else 1)
    free = free_nbytes(device)
    return wanted if free is None else min(wanted, free // 2)


def in_place(device: torch.device, nbytes: int) -> float:
    """Bytes read plus written per second by the better of two of torch's in-place kernels, over ``nbytes``."""
    values = torch.ones(nbytes // 2, dtype=torch.bfloat16, device=device)
    ways: list[Callable[[], object]] = [lambda: values.mul_(1), lambda: values.neg_()]
    return 2 * values.nbytes / min(best_seconds(device, way, _TRIES) for way in ways)


def ffma(device: torch.device, size: int) -> tuple[float, str]:
    """(FLOP/s, measured by what). On a GPU a loop of multiply-adds in registers; elsewhere a matrix product."""
    if device.type == "cuda":
        sink = torch.zeros(1, device=device)
        stream = torch.cuda.current_stream(device).cuda_stream
        count = _C.cuda_probe_ffma(device.index, stream, _PROBE_ROUNDS, sink.data_ptr())
        seconds = best_seconds(
            device, lambda: _C.cuda_probe_ffma(device.index, stream, _PROBE_ROUNDS, sink.data_ptr()), 5
        )
        return 2 * count / seconds, "our loop of multiply-adds in registers"
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * size**3 / best_seconds(device, lambda: torch.mm(a, b, out=out), 5), f"torch.mm [{size}, {size}]"
