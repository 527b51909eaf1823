"""Undoing and switching on a device, as ratios of composing there."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import lora_mmap

from ..models import linears
from .findings import Budget, Findings
from .fuse import Subject
from .timing import synchronise

_MIB = 1 << 20
# What a journal, a switch and an undo may cost.
_ENCODE, _SWITCH, _UNDO = 1.3, 1.2, 1.0

_T = TypeVar("_T")


def measure(findings: Findings, subject: Subject, other: Path, rounds: int, budget: Budget) -> None:
    """``other`` is an adapter for the same modules. Each time from the call until the device is idle, files in the page
    cache, factors in memory where the call finds them there; medians of rounds after one that is not counted."""
    seconds: dict[str, list[float]] = {}
    journal = 0
    for number in range(rounds + 1):
        if number > 1 and not budget.left:
            break
        found, journal = _round(subject, other)
        if number:
            for what, took in found.items():
                seconds.setdefault(what, []).append(took)
    medians = {what: statistics.median(took) for what, took in seconds.items()}
    if changed := subject.pattern.changed(whole=True):
        raise AssertionError(f"{changed} of {subject.pattern.count} weights are not what they were")
    for what, took in medians.items():
        findings.line(f"{subject.what}, {what}", f"{took * 1e3:.2f} ms")
    weights = sum(module.weight.nbytes for module in linears(subject.model).values())
    findings.line(f"{subject.what}, journal", f"{journal / _MIB:.1f} MiB, {journal / weights:.1%} of the weights")
    _judge(findings, subject, "kernel with a journal / with hashes", medians, "journal kernel", "hash kernel", _ENCODE)
    _judge(findings, subject, "a switch / composing both", medians, "switch", "both", _SWITCH)
    _judge(findings, subject, "reset / composing", medians, "reset", "compose again", _UNDO)


def _round(subject: Subject, other: Path) -> tuple[dict[str, float], int]:
    """Seconds by what was done, and the bytes of the journal."""
    model, path = subject.model, subject.path
    found: dict[str, float] = {}
    with lora_mmap.open_adapter(path) as first, lora_mmap.open_adapter(other) as second:
        report = lora_mmap.compose(model, [(first, 1.0)], restore="backup")
        found["hash kernel"] = report.stages["fuse"]
        lora_mmap.reset(model)
        report = _timed(subject, found, "compose", lambda: lora_mmap.compose(model, [(first, 1.0)]))
        found["journal kernel"], journal = report.stages["fuse"], report.memory["restore"]
        _timed(subject, found, "switch", lambda: lora_mmap.compose(model, [(second, 1.0)]))
        _timed(subject, found, "reset", lambda: lora_mmap.reset(model))
        _timed(subject, found, "compose again", lambda: lora_mmap.compose(model, [(first, 1.0)]))
        lora_mmap.reset(model)
        _timed(subject, found, "both", lambda: lora_mmap.compose(model, [(first, 1.0), (second, 1.0)]))
        lora_mmap.reset(model)
    return found, journal


def _timed(subject: Subject, found: dict[str, float], what: str, work: Callable[[], _T]) -> _T:
    synchronise(subject.device)
    begin = time.perf_counter()
    result = work()
    synchronise(subject.device)
    found[what] = time.perf_counter() - begin
    return result


def _judge(
    findings: Findings, subject: Subject, statement: str, medians: dict[str, float], what: str, of: str, goal: float
) -> None:
    ratio = medians[what] / medians[of]
    findings.goal(f"{subject.what}: {statement} <= {goal:g}", f"{ratio:.2f}", ratio <= goal)
