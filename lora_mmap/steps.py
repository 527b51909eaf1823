"""From one state of some weights to the next, each element in one pass: pristine, new sum, one write."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from . import fault_points, native_types
from .foreign import Foreign
from .held import Held, Move
from .lowering import Lowered, lower
from .lowering.jobs import Place, Sum, place_of
from .lowering.operands import Operands
from .terms import Rectangle, WeightPlan

_Sides = list[tuple[Rectangle, native_types.Side]]


@dataclass(slots=True)
class Outcome:
    """What went wrong where: weights with results that are not finite, and tiles that somebody else wrote to."""

    overflowed: list[WeightPlan] = field(default_factory=list)
    foreign: list[Foreign] = field(default_factory=list)


class OwnedStep(NamedTuple):
    """A native step, and the rectangle that it is of."""

    step: native_types.Step
    held: Held
    rectangle: Rectangle


class Steps(ABC):
    """Runs moves. A move that stopped in the middle is continued, or taken back by the reversed one, tile by tile."""

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
        first: list[OwnedStep] = []
        second: list[OwnedStep] = []
        for move in moves:
            before = old_sides(move.old, undone, places) if move.old else []
            after = self._new_sides(move, move.new, done) if move.new else []
            if not in_one_pass(move):
                first += [owned_step(move.held, rectangle, side, None) for rectangle, side in before]
                second += [owned_step(move.held, rectangle, None, side) for rectangle, side in after]
                continue
            for i, (rectangle, _) in enumerate(before or after):
                sides = (before[i][1] if before else None, after[i][1] if after else None)
                first.append(owned_step(move.held, rectangle, *sides))
        for steps in (first, second):
            if steps and not outcome.foreign:
                self._step(steps, outcome)
        return outcome

    def extract(self, held: Sequence[Held], to: Sequence[Place], operands: Operands) -> Outcome:
        """Writes the pristine values of journaled weights to other memory; the weights keep what they hold."""
        outcome = Outcome()
        lowered = self._lower(held, operands, outcome)
        steps = []
        for one, place in zip(held, to, strict=True):
            sides = old_sides(one, lowered, {})
            steps += [owned_step(one, rectangle, side, None, under(rectangle, place, one)) for rectangle, side in sides]
        if steps:
            self._step(steps, outcome)
        return outcome

    def look_through(self, held: Held, scratch: Place) -> Outcome:
        """Finds the tiles of a weight that somebody else wrote to. ``scratch`` has room for the weight."""
        outcome = Outcome()
        sides = old_sides(held, Lowered(), {held.geometry.address: place_of(held.geometry)})
        steps = [owned_step(held, rectangle, side, None, under(rectangle, scratch, held)) for rectangle, side in sides]
        self._step(steps, outcome)
        return outcome

    @abstractmethod
    def wait_for_copies(self) -> None:
        """Until copies that were asked for are there for the host to read."""

    def base_of(self, move: Move, one: Sum) -> Place | None:
        """What the terms of a new weight are added to, where it is not the pristine values that the step finds."""
        return one.base

    def _new_sides(self, move: Move, held: Held, lowered: Lowered) -> _Sides:
        sides: _Sides = []
        for one, record in zip(lowered.sums[id(held.plan)], held.records, strict=True):
            place = self.base_of(move, one)
            base = (0, 0, 0) if place is None else under(one.rectangle, place, held)
            sides.append((one.rectangle, (one.terms, record, *base)))
        return sides

    def _lower(self, held: Sequence[Held], operands: Operands, outcome: Outcome) -> Lowered:
        fault_points.reach("lower")
        pristine = {one.geometry.address: place for one in held if (place := one.pristine)}
        lowered = lower([one.plan for one in held], operands, pristine)
        self.make(lowered, outcome)
        return lowered

    def make(self, lowered: Lowered, outcome: Outcome) -> None:
        """What the sums take."""
        if lowered.made:
            self._fuse(lowered.made, lowered.made_owners, outcome)
        if lowered.gains:
            self._gains(lowered.gains, lowered.gains_owners, outcome)

    @abstractmethod
    def _fuse(self, jobs: list[native_types.Job], owners: list[WeightPlan], outcome: Outcome) -> None:
        """Makes factors or values."""

    @abstractmethod
    def _gains(self, jobs: list[native_types.Gains], owners: list[WeightPlan], outcome: Outcome) -> None:
        """Computes DoRA's magnitudes over norms."""

    @abstractmethod
    def _step(self, steps: list[OwnedStep], outcome: Outcome) -> None:
        """Takes steps. What is found later is not in the outcome."""


def in_one_pass(move: Move) -> bool:
    """False where old and new terms cover other rectangles of the weight."""
    if move.old is None or move.new is None:
        return True
    before, after = move.old.plan.rectangles(), move.new.plan.rectangles()
    return [rectangle[:2] for rectangle in before] == [rectangle[:2] for rectangle in after]


def old_sides(held: Held, lowered: Lowered, places: Mapping[int, Place]) -> _Sides:
    """The old sides of the rectangles of a weight, its pristine values at a place or brought back by its terms."""
    place = places.get(held.geometry.address)
    if place is None:
        sums = lowered.sums[id(held.plan)]
        return [(one.rectangle, (one.terms, record, 0, 0, 0)) for one, record in zip(sums, held.records, strict=True)]
    sides: _Sides = []
    for rectangle, record in zip(held.plan.rectangles(), held.records, strict=True):
        sides.append((rectangle, ([], record, *under(rectangle, place, held))))
    return sides


def under(rectangle: Rectangle, place: Place, held: Held) -> tuple[int, int, int]:
    """Address and strides of the part of a place."""
    address = place.at(rectangle.rows[0], rectangle.cols[0], held.geometry.itemsize)
    return address, place.row_stride, place.col_stride


def owned_step(
    held: Held,
    rectangle: Rectangle,
    old: native_types.Side | None,
    new: native_types.Side | None,
    out: tuple[int, int, int] | None = None,
) -> OwnedStep:
    geometry = held.geometry
    (top, bottom), (left, right), _ = rectangle
    address = place_of(geometry).at(top, left, geometry.itemsize)
    shape = (bottom - top, right - left, geometry.row_stride, geometry.col_stride)
    return OwnedStep((address, *shape, geometry.dtype, old, new, out), held, rectangle)


def _address(move: Move) -> int:
    return move.held.geometry.address
