"""From one state of some weights on the CPU to the next, each element in one pass: pristine, new sum, one write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from . import _C, fault_points, native_types
from .foreign import Foreign
from .held import Held, Move
from .lowering import Lowered, lower
from .lowering.jobs import Place, place_of
from .lowering.operands import Operands
from .terms import Rectangle, WeightPlan

_Sides = list[tuple[Rectangle, native_types.Side]]


@dataclass(slots=True)
class Outcome:
    """What went wrong where: weights with results that are not finite, and tiles that somebody else wrote to."""

    overflowed: list[WeightPlan] = field(default_factory=list)
    foreign: list[Foreign] = field(default_factory=list)


class HostSteps:
    """Runs moves. A move that stopped in the middle is continued, or taken back by the reversed one, tile by tile."""

    def __init__(self, threads: int, force: bool) -> None:
        self._threads = threads
        self._force = force

    def run(
        self, moves: Sequence[Move], old: Operands, new: Operands, pristine: Mapping[int, Place] | None = None
    ) -> Outcome:
        """``old`` and ``new`` have the factors of what is held and what shall be; ``pristine`` tells where else the
        pristine values of old weights lie, by address."""
        places = {move.old.geometry.address: place for move in moves if move.old and (place := move.old.pristine)}
        places.update(pristine or {})
        outcome = Outcome()
        undone = self._lower([move.old for move in moves if move.old and _address(move) not in places], old, outcome)
        done = self._lower([move.new for move in moves if move.new], new, outcome)
        if outcome.overflowed:
            return outcome
        first: list[tuple[native_types.Step, Held, Rectangle]] = []
        second: list[tuple[native_types.Step, Held, Rectangle]] = []
        for move in moves:
            before = _old_sides(move.old, undone, places) if move.old else []
            after = _new_sides(move.new, done) if move.new else []
            if before and after and [r[:2] for r, _ in before] != [r[:2] for r, _ in after]:
                first += [_step(move.held, rectangle, side, None) for rectangle, side in before]
                second += [_step(move.held, rectangle, None, side) for rectangle, side in after]
                continue
            for i, (rectangle, _) in enumerate(before or after):
                step = _step(move.held, rectangle, before[i][1] if before else None, after[i][1] if after else None)
                first.append(step)
        for steps in (first, second):
            if steps and not outcome.foreign:
                self._run(steps, outcome)
        return outcome

    def extract(self, held: Sequence[Held], to: Sequence[Place], operands: Operands) -> Outcome:
        """Writes the pristine values of journaled weights to other memory; the weights keep what they hold."""
        outcome = Outcome()
        lowered = self._lower(held, operands, outcome)
        steps = []
        for one, place in zip(held, to, strict=True):
            sides = _old_sides(one, lowered, {})
            steps += [_step(one, rectangle, side, None, _under(rectangle, place, one)) for rectangle, side in sides]
        if steps:
            self._run(steps, outcome)
        return outcome

    def foreign(self, held: Held, scratch: Place) -> list[Foreign]:
        """The first tiles of a weight that somebody else wrote to. ``scratch`` has room for the weight."""
        outcome = Outcome()
        sides = _old_sides(held, Lowered(), {held.geometry.address: place_of(held.geometry)})
        steps = [_step(held, rectangle, side, None, _under(rectangle, scratch, held)) for rectangle, side in sides]
        self._run(steps, outcome)
        return outcome.foreign

    def _lower(self, held: Sequence[Held], operands: Operands, outcome: Outcome) -> Lowered:
        fault_points.reach("lower")
        pristine = {one.geometry.address: place for one in held if (place := one.pristine)}
        lowered = lower([one.plan for one in held], operands, pristine)
        if lowered.made:
            overflowed = _C.fuse(lowered.made, self._threads)
            outcome.overflowed += [lowered.made_owners[job] for job in overflowed]
        if lowered.gains:
            overflowed = _C.gains(lowered.gains, self._threads)
            outcome.overflowed += [lowered.gains_owners[job] for job in overflowed]
        return lowered

    def _run(self, steps: list[tuple[native_types.Step, Held, Rectangle]], outcome: Outcome) -> None:
        fault_points.reach("fuse")
        overflowed, foreign = _C.step([step for step, _, _ in steps], self._threads, force=self._force)
        outcome.overflowed += [steps[index][1].plan for index in overflowed]
        for index, row, col in foreign:
            _, held, ((top, _), (left, _), _) = steps[index]
            outcome.foreign.append(Foreign(held.geometry, top + row, left + col))


def _address(move: Move) -> int:
    return move.held.geometry.address


def _old_sides(held: Held, lowered: Lowered, places: Mapping[int, Place]) -> _Sides:
    place = places.get(held.geometry.address)
    if place is None:
        sums = lowered.sums[id(held.plan)]
        return [(one.rectangle, (one.terms, record, 0, 0, 0)) for one, record in zip(sums, held.records, strict=True)]
    sides: _Sides = []
    for rectangle, record in zip(held.plan.rectangles(), held.records, strict=True):
        sides.append((rectangle, ([], record, *_under(rectangle, place, held))))
    return sides


def _new_sides(held: Held, lowered: Lowered) -> _Sides:
    sides: _Sides = []
    for one, record in zip(lowered.sums[id(held.plan)], held.records, strict=True):
        base = (0, 0, 0) if one.base is None else _under(one.rectangle, one.base, held)
        sides.append((one.rectangle, (one.terms, record, *base)))
    return sides


def _under(rectangle: Rectangle, place: Place, held: Held) -> tuple[int, int, int]:
    """Address and strides of the part of a place."""
    address = place.at(rectangle.rows[0], rectangle.cols[0], held.geometry.itemsize)
    return address, place.row_stride, place.col_stride


def _step(
    held: Held,
    rectangle: Rectangle,
    old: native_types.Side | None,
    new: native_types.Side | None,
    out: tuple[int, int, int] | None = None,
) -> tuple[native_types.Step, Held, Rectangle]:
    geometry = held.geometry
    (top, bottom), (left, right), _ = rectangle
    address = place_of(geometry).at(top, left, geometry.itemsize)
    shape = (bottom - top, right - left, geometry.row_stride, geometry.col_stride)
    return (address, *shape, geometry.dtype, old, new, out), held, rectangle
