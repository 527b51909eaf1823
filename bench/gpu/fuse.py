"""File to fused weights on the device: by us in both kinds of arithmetic, by torch alone, by diffusers + PEFT."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

import lora_mmap
from lora_mmap.model_state import Numerics

from ..models import Pattern, linears
from ..peers import diffusers_peft, torch_fuse
from ..results import OURS
from ..timing import Contender, Samples
from .ceilings import Ceilings
from .findings import Budget, Findings
from .floors import Floor, Work, kernel_goal, time_goal
from .timing import Timed, interleave, synchronise

ADDMM = "torch addmm_"
_MIB = 1 << 20
# Tables of the launches, and what torch's allocator adds to blocks.
_SLACK_NBYTES = 16 * _MIB
_PEER_ROUNDS = 3
_STAGES = ("open", "index", "plan", "read", "save", "fuse")


@dataclass(frozen=True)
class Ours:
    """One way of composing."""

    numerics: Numerics
    restore: str

    @property
    def name(self) -> str:
        return f"{OURS} {self.numerics}, {self.restore}"


@dataclass(frozen=True)
class Subject:
    """A model on a device, all of whose Linears an adapter file of ``rank`` covers. ``seconds_goals``: (on which
    device, the stage, at most so long)."""

    what: str
    device: torch.device
    model: nn.Module
    pattern: Pattern
    path: Path
    prefix: str
    rank: int
    seconds_goals: tuple[tuple[str, str, float], ...] = ()

    def work(self) -> Work:
        modules = linears(self.model).values()
        shapes = [(module.out_features, module.in_features) for module in modules]
        return Work.of(shapes, next(iter(modules)).weight.itemsize, self.rank)


def measure(
    findings: Findings,
    subject: Subject,
    ceilings: Ceilings,
    ways: Sequence[Ours],
    rounds: int,
    budget: Budget,
    with_peft: bool = False,
) -> None:
    """All contenders in turn; diffusers + PEFT after them, because it rebuilds the module tree."""
    _require_exact_reset(subject)
    memory: dict[str, Mapping[str, int]] = {}
    contenders = [_ours(subject, way, memory) for way in ways]
    contenders.append(Contender(ADDMM, _by_addmm(subject), subject.pattern.restore))
    timed = interleave(
        subject.device, contenders, rounds, budget.part(0.6 * budget.left), lambda _: _require_changed(subject)
    )
    if with_peft:
        _add_peft(findings, subject, timed, budget)
    floor = Floor.of(subject.work(), ceilings)
    _add_rows(findings, subject, timed, floor, ways)
    for name, why in timed.failed.items():
        findings.failed(f"{subject.what}, {name}", why)
    for way in ways:
        if way.name in timed.samples:
            _judge(findings, subject, way, timed.samples[way.name], floor, memory[way.name])


def _ours(subject: Subject, way: Ours, memory: dict[str, Mapping[str, int]]) -> Contender:
    def compose() -> dict[str, float]:
        report = lora_mmap.compose(
            subject.model, [(subject.path, 1.0)], restore=way.restore, numerics=way.numerics, strict=True
        )
        memory[way.name] = report.memory
        return {stage: report.stages[stage] for stage in _STAGES}

    def restore() -> None:
        if not lora_mmap.reset(subject.model):
            subject.pattern.restore()

    return Contender(way.name, compose, restore)


def _by_addmm(subject: Subject) -> Callable[[], dict[str, float]]:
    modules = linears(subject.model)
    device, prefix = subject.device, subject.prefix

    def run() -> dict[str, float]:
        begin = time.perf_counter()
        tensors = load_file(str(subject.path), device=str(device))
        synchronise(device)
        loaded = time.perf_counter()
        with torch.no_grad():
            for name, module in modules.items():
                up, down = tensors[f"{prefix}{name}.lora_B.weight"], tensors[f"{prefix}{name}.lora_A.weight"]
                torch_fuse.addmm(module.weight, up, down, 1.0)
        synchronise(device)
        return {"load": loaded - begin, "fuse": time.perf_counter() - loaded}

    return run


def _add_peft(findings: Findings, subject: Subject, timed: Timed, budget: Budget) -> None:
    if reason := diffusers_peft.why_not():
        findings.left_out(f"{subject.what}, {diffusers_peft.NAME}", reason)
        return
    if not budget.left:
        findings.left_out(f"{subject.what}, {diffusers_peft.NAME}", "no time left")
        return
    peer = diffusers_peft.DiffusersPeft(subject.model)

    def undo() -> None:
        peer.unload()
        subject.pattern.restore()

    contender = Contender(diffusers_peft.NAME, lambda: peer.load_and_fuse(subject.path), undo)
    theirs = interleave(subject.device, [contender], _PEER_ROUNDS, budget, lambda _: _require_changed(subject))
    timed.samples |= theirs.samples
    timed.failed |= theirs.failed


def _require_changed(subject: Subject) -> None:
    changed, expected = subject.pattern.changed(), subject.pattern.count
    if changed != expected:
        raise AssertionError(f"{changed} of {expected} weights changed")


def _require_exact_reset(subject: Subject) -> None:
    lora_mmap.compose(subject.model, [(subject.path, 1.0)], strict=True)
    lora_mmap.reset(subject.model)
    if changed := subject.pattern.changed(whole=True):
        raise AssertionError(f"after reset {changed} of {subject.pattern.count} weights are not what they were")


def _add_rows(findings: Findings, subject: Subject, timed: Timed, floor: Floor, ways: Sequence[Ours]) -> None:
    reference = ways[0].name
    floors: dict[tuple[str, str], float] = {}
    for way in ways:
        if (seconds := floor.seconds(way.numerics)) is not None:
            floors[way.name, "fuse"] = seconds
    if floor.hbm is not None:
        floors |= {(name, "fuse"): floor.hbm for name in timed.samples if not name.startswith(OURS)}
    findings.result.add(subject.what, timed.samples, floors, ours=reference)
    for name, samples in timed.samples.items():
        if not name.startswith(OURS):
            findings.line(f"{subject.what}, {name}", _figure(samples))


def _judge(
    findings: Findings, subject: Subject, way: Ours, samples: Samples, floor: Floor, memory: Mapping[str, int]
) -> None:
    what = f"{subject.what}, {way.numerics}, restore={way.restore}"
    kernel = samples.spread("fuse").median
    least = floor.seconds(way.numerics)
    of_floor = f" ({least / kernel:.0%} of floor)" if least else ""
    findings.line(what, f"{_figure(samples)}; kernel {kernel * 1e3:.2f} ms{of_floor}")
    findings.add_goal(kernel_goal(what, way.numerics, subject.rank, floor, kernel))
    for device_name, stage, wanted in subject.seconds_goals:
        here = torch.cuda.get_device_name(subject.device) if subject.device.type == "cuda" else "CPU"
        measured = samples.spread(stage).median
        label = f"{what}, {'file to fused' if stage == 'total' else 'kernel'}"
        findings.add_goal(time_goal(label, here, device_name, wanted, measured))
    if samples.growth:
        promised = sum(memory.get(kind, 0) for kind in ("arena", "restore", "transient"))
        growth = max(samples.growth)
        findings.goal(
            f"{what}: device memory beside the weights <= what the report says (arena, restore, transient) + "
            f"{_SLACK_NBYTES // _MIB} MiB",
            f"{growth / _MIB:.0f} MiB, the report says {promised / _MIB:.0f} MiB",
            growth <= promised + _SLACK_NBYTES,
        )


def _figure(samples: Samples) -> str:
    peak = f"; peak device memory {max(samples.growth) / _MIB:.0f} MiB" if samples.growth else ""
    return f"{samples.spread().median * 1e3:.2f} ms file to fused{peak}"
