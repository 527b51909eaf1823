"""Moves of weights on the CPU: what goes wrong is known at once."""

from __future__ import annotations

from . import _C, fault_points, native_types
from .foreign import Foreign
from .held import Held
from .lowering import Lowered
from .lowering.jobs import Place, place_of
from .steps import Outcome, OwnedStep, Steps, old_sides, owned_step, under
from .terms import WeightPlan

__all__ = ["HostSteps", "Outcome"]


class HostSteps(Steps):
    """By the native core, on some threads; with ``force`` hashes are not looked at."""

    def __init__(self, threads: int, force: bool) -> None:
        self._threads = threads
        self._force = force

    def foreign(self, held: Held, scratch: Place) -> list[Foreign]:
        """The first tiles of a weight that somebody else wrote to. ``scratch`` has room for the weight."""
        outcome = Outcome()
        sides = old_sides(held, Lowered(), {held.geometry.address: place_of(held.geometry)})
        steps = [owned_step(held, rectangle, side, None, under(rectangle, scratch, held)) for rectangle, side in sides]
        self._step(steps, outcome)
        return outcome.foreign

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
