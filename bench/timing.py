"""Interleaved repetitions: every round runs every contender once, so that drift of the machine meets all of them."""

from __future__ import annotations

import gc
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from .memory import peak_growth

Stages = Mapping[str, float]
TOTAL = "total"


@dataclass
class Contender:
    """One way of doing the work. ``run`` is timed and returns seconds of the stages it tells apart (may be empty);
    ``restore`` brings everything back to where it was and is not timed."""

    name: str
    run: Callable[[], Stages]
    restore: Callable[[], None] = lambda: None


@dataclass
class Script:
    """One way of doing several things in a row, each of which is timed by itself. ``restore`` as a contender's."""

    name: str
    steps: Mapping[str, Callable[[], object]]
    restore: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Spread:
    """Median and range of one measured quantity over all rounds."""

    median: float
    min: float
    max: float
    rounds: int

    @staticmethod
    def of(samples: Sequence[float]) -> Spread:
        return Spread(statistics.median(samples), min(samples), max(samples), len(samples))


@dataclass
class Samples:
    """What one contender cost: seconds per stage (``total`` is wall-clock around the whole run), process CPU seconds,
    and bytes of resident memory at the peak above the level before."""

    stages: dict[str, list[float]] = field(default_factory=dict)
    cpu: list[float] = field(default_factory=list)
    growth: list[int] = field(default_factory=list)

    def spread(self, stage: str = TOTAL) -> Spread:
        return Spread.of(self.stages[stage])


def interleave(
    contenders: Sequence[Contender],
    rounds: int,
    before_round: Callable[[], None] = lambda: None,
    after_warm_up: Callable[[Contender], None] = lambda contender: None,
    before_each: Callable[[], None] = lambda: None,
    patience: float = math.inf,
) -> dict[str, Samples]:
    """Runs A B C, A B C, ... after one warm-up of each that is not counted. ``after_warm_up`` sees the state that a
    contender left behind (and may raise: a contender that did not do the work must not be timed). Contenders whose
    warm-up took longer than ``patience`` seconds run in the first round only."""
    samples = {contender.name: Samples() for contender in contenders}
    slow: set[str] = set()
    for contender in contenders:
        progress(f"  warm-up  {contender.name}")
        begin = time.perf_counter()
        contender.run()
        slow |= {contender.name} if time.perf_counter() - begin > patience else set()
        after_warm_up(contender)
        contender.restore()
    for number in range(rounds):
        gc.collect()
        before_round()
        for contender in contenders:
            if number and contender.name in slow:
                continue
            before_each()
            total = _run_once(contender, samples[contender.name])
            contender.restore()
            if total > 0.5:
                progress(f"  {number + 1}/{rounds}  {contender.name}: {total:.2f} s")
    return samples


def interleave_scripts(
    scripts: Sequence[Script],
    rounds: int,
    before_round: Callable[[], None] = lambda: None,
    before_each: Callable[[], None] = lambda: None,
) -> dict[str, dict[str, Samples]]:
    """Runs whole scripts A B C, A B C, ...: by step, then by script, what each cost. There is no warm-up."""
    samples: dict[str, dict[str, Samples]] = {}
    for number in range(rounds):
        gc.collect()
        before_round()
        for script in scripts:
            before_each()
            for step, work in script.steps.items():
                own = samples.setdefault(step, {}).setdefault(script.name, Samples())
                total = _run_once(Contender(step, lambda work=work: _untold(work)), own)  # type: ignore[misc]
                if total > 0.5:
                    progress(f"  {number + 1}/{rounds}  {script.name}: {step}: {total:.2f} s")
            script.restore()
    return samples


def _untold(work: Callable[[], object]) -> Stages:
    """Does it, and tells no stages apart."""
    work()
    return {}


def _run_once(contender: Contender, samples: Samples) -> float:
    with peak_growth() as growth:
        cpu = time.process_time()
        begin = time.perf_counter()
        stages = contender.run()
        total = time.perf_counter() - begin
        samples.cpu.append(time.process_time() - cpu)
    if growth:
        samples.growth.append(growth[0])
    for name, seconds in {TOTAL: total, **stages}.items():
        samples.stages.setdefault(name, []).append(seconds)
    return total


def progress(line: str) -> None:
    """One line for whoever watches, on stderr."""
    print(line, file=sys.stderr, flush=True)
