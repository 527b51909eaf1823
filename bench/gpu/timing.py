"""Rounds on a device: every run begins and ends with an idle device, and its peak memory is the device's.

On a CPU all of it works as well, without the memory.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import torch

from ..timing import TOTAL, Contender, Samples, progress
from .findings import Budget, reason


@dataclass
class Timed:
    """Who ran, and who failed and why."""

    samples: dict[str, Samples] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def synchronise(device: torch.device) -> None:
    """Waits until ``device`` is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleave(
    device: torch.device,
    contenders: Sequence[Contender],
    rounds: int,
    budget: Budget,
    after_warm_up: Callable[[Contender], None] = lambda contender: None,
) -> Timed:
    """A B C, A B C, ... after one warm-up of each; at least one round, then no further one once the budget is spent.
    A contender that raises, or that ``after_warm_up`` raises about, is out."""
    timed = Timed()
    for contender in contenders:
        progress(f"    warm-up  {contender.name}")
        try:
            contender.run()
            synchronise(device)
            after_warm_up(contender)
        except Exception as error:
            timed.failed[contender.name] = reason(error)
        with suppress(Exception):
            contender.restore()
    for number in range(rounds):
        if number and not budget.left:
            progress(f"    out of time after {number} of {rounds} rounds")
            break
        gc.collect()
        for contender in contenders:
            if contender.name in timed.failed:
                continue
            try:
                _run_once(device, contender, timed.samples.setdefault(contender.name, Samples()))
                contender.restore()
            except Exception as error:
                timed.failed[contender.name] = reason(error)
    timed.samples = {name: samples for name, samples in timed.samples.items() if samples.stages}
    return timed


def _run_once(device: torch.device, contender: Contender, samples: Samples) -> None:
    synchronise(device)
    before = _watch_peak(device)
    cpu = time.process_time()
    begin = time.perf_counter()
    stages = contender.run()
    synchronise(device)
    total = time.perf_counter() - begin
    samples.cpu.append(time.process_time() - cpu)
    if before is not None:
        samples.growth.append(torch.cuda.max_memory_allocated(device) - before)
    for name, seconds in {TOTAL: total, **stages}.items():
        samples.stages.setdefault(name, []).append(seconds)


def _watch_peak(device: torch.device) -> int | None:
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def best_seconds(device: torch.device, work: Callable[[], object], tries: int) -> float:
    """The shortest of ``tries`` runs after one that is not counted: device time between events; wall clock on a CPU."""
    work()
    return min(_device_seconds(work) if device.type == "cuda" else _wall_seconds(work) for _ in range(tries))


def _device_seconds(work: Callable[[], object]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begin.record()
    work()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


def _wall_seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
