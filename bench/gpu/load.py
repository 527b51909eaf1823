"""Files to tensors on the device: many small tensors, and large files, beside safetensors and beside pinned copies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

import lora_mmap

from ..results import OURS
from ..timing import Contender
from .ceilings import Ceilings
from .findings import Budget, Findings
from .timing import Timed, interleave, synchronise

_PEER = "safetensors"
_MIB = 1 << 20
_ROUNDS = 15
# (what, tensors, bf16 elements of each)
KINDS = (
    ("3000 tensors, 50 MB", 3000, 16 * 520),
    ("16 tensors, 256 MiB", 16, 8 * _MIB),
    ("16 tensors, 1 GiB", 16, 32 * _MIB),
)
_LARGE_NBYTES = 256 * _MIB
_H2D_GOAL = 0.8

Load = Callable[[], dict[str, Tensor]]


def measure(
    findings: Findings, device: torch.device, ceilings: Ceilings, scratch: Path, budget: Budget, quick: bool
) -> None:
    """The files of this section, one after the other, while there is time."""
    kinds = KINDS[:-1] if quick else KINDS
    for position, (name, count, elements) in enumerate(kinds):
        if not budget.left:
            findings.left_out(f"loading {name}", "no time left")
            continue
        with findings.step(f"load {name}"):
            path = scratch / f"load-{position}.safetensors"
            write(path, count, elements)
            try:
                one_file(findings, device, ceilings, path, name, budget.part(budget.left / (len(kinds) - position)))
            finally:
                path.unlink()


def write(path: Path, count: int, elements: int) -> None:
    """``count`` bf16 tensors of as many elements, and the file in the page cache."""
    values = torch.arange(elements, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    tensors = {f"blocks.{i}.proj.lora_A.weight": values + 0 * i for i in range(count)}
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    path.read_bytes()


def one_file(
    findings: Findings, device: torch.device, ceilings: Ceilings, path: Path, name: str, budget: Budget
) -> None:
    """Loads one file by everybody, and judges us by the pinned copy and by the peer."""
    nbytes = path.stat().st_size
    ways: dict[str, Load] = {
        OURS: lambda: lora_mmap.torch.load_file(path, device=str(device)),
        _PEER: lambda: safetensors.torch.load_file(path, device=str(device)),
    }
    timed = interleave(device, [_contender(device, way, load) for way, load in ways.items()], _ROUNDS, budget)
    floor = nbytes / ceilings.h2d if ceilings.h2d else None
    variant = f"load {name}"
    floors = {(way, "total"): floor for way in timed.samples} if floor else {}
    findings.result.add(variant, timed.samples, floors)
    for way, why in timed.failed.items():
        findings.failed(f"{variant} by {way}", why)
    if OURS in timed.samples:
        _judge(findings, timed, variant, nbytes, floor)


def _judge(findings: Findings, timed: Timed, variant: str, nbytes: int, floor: float | None) -> None:
    seconds = timed.samples[OURS].spread().median
    figure = f"{seconds * 1e3:.2f} ms, {nbytes / seconds / 1e9:.1f} GB/s"
    if floor is not None:
        figure += f", {floor / seconds:.0%} of a pinned copy"
    if nbytes >= _LARGE_NBYTES:
        measured = f"{floor / seconds:.0%}" if floor else "failed: that ceiling was not measured"
        met = floor is not None and floor / seconds >= _H2D_GOAL
        findings.goal(f"{variant}: >= {_H2D_GOAL:.0%} of a measured pinned copy, warm", measured, met)
    if _PEER in timed.samples:
        theirs = timed.samples[_PEER].spread().median
        figure += f"; {_PEER} {theirs * 1e3:.2f} ms"
        measured = f"{theirs / seconds:.2f} x our time"
        findings.goal(f"{variant}: not slower than {_PEER}", measured, theirs >= seconds)
    if timed.samples[OURS].growth:
        beside = max(timed.samples[OURS].growth) - nbytes
        figure += f"; peak device memory beside the tensors {beside / _MIB:.0f} MiB"
    findings.line(variant, figure)


def _contender(device: torch.device, name: str, load: Load) -> Contender:
    def run() -> dict[str, float]:
        load()
        synchronise(device)
        return {}

    return Contender(name, run)
