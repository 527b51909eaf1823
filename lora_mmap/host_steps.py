"""Moves of weights on the CPU: what goes wrong is known at once."""

from __future__ import annotations

from . import _C, fault_points, native_types
from .foreign import Foreign
from .steps import Outcome, OwnedStep, Steps
from .terms import WeightPlan


class HostSteps(Steps):
    """By the native core, on some threads; with ``force`` hashes are not looked at."""

    def __init__(self, threads: int, force: bool) -> None:
        self._threads = threads
        self._force = force

    def wait_for_copies(self) -> None:
        pass

    def _fuse(self, jobs: list[native_types.Job], owners: list[WeightPlan], outcome: Outcome) -> None:
        outcome.overflowed += [owners[job] for job in _C.fuse(jobs, self._threads)]

    def _gains(self, jobs: list[native_types.Gains], owners: list[WeightPlan], outcome: Outcome) -> None:
        outcome.overflowed += [owners[job] for job in _C.gains(jobs, self._threads)]

    def _step(self, steps: list[OwnedStep], outcome: Outcome) -> None:
        fault_points.reach("fuse")
        overflowed, foreign = _C.step([one.step for one in steps], self._threads, force=self._force)
        outcome.overflowed += [steps[index].held.plan for index in overflowed]
        for index, row, col in foreign:
            _, held, ((top, _), (left, _), _) = steps[index]
            outcome.foreign.append(Foreign(held.geometry, top + row, left + col))
