"""How the rows or columns of a factor pair lie in a weight: both are pieces of one matrix, each in its own order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .tables import Axis, Layout, Weights


class Run(NamedTuple):
    """``size`` rows (columns) of the weight from ``target`` on are those of the pair from ``source`` on."""

    target: int
    source: int
    size: int


class Weave(NamedTuple):
    """Pieces of equal size that lie in each other: ``in_turn`` rows of the first, of the second, ..."""

    pieces: int
    in_turn: int

    def order(self, rows: int) -> npt.NDArray[np.int32]:
        """For each of ``rows`` rows: which row of the stacked pieces it is."""
        stacked = np.arange(rows, dtype=np.int32).reshape(self.pieces, -1, self.in_turn)
        return stacked.transpose(1, 0, 2).reshape(rows)


@dataclass(frozen=True)
class Placement:
    """What of a pair lands where in one weight. ``runs`` are in units, of which the weight's axis has ``target_units``
    and the pair's ``source_units``. ``woven`` and ``source_woven``: the units of the weight, of the pair, are not
    stacked.
    """

    axis: Axis = "rows"
    runs: tuple[Run, ...] = (Run(0, 0, 1),)
    target_units: int = 1
    source_units: int = 1
    woven: Weave | None = None
    source_woven: Weave | None = None
    square: bool = False

    @cached_property
    def is_whole(self) -> bool:
        """True when the weight and the pair are the same matrix, row by row."""
        return not self.is_woven and self.runs == (Run(0, 0, self.target_units),) and not self._is_section

    @property
    def is_woven(self) -> bool:
        """True when rows move one by one: no run of them stays together."""
        return self.woven is not None or self.source_woven is not None

    @property
    def _is_section(self) -> bool:
        return self.target_units != self.source_units

    @cached_property
    def layout(self) -> str | None:
        """The name of the permutation, or None where the order is the same."""
        weave = self.woven or self.source_woven
        if weave is not None:
            heads = "" if weave.in_turn == 1 else f", {weave.in_turn} rows in turn"
            return f"interleaved by {weave.pieces}{heads}"
        if len(self.runs) < 2:
            return None
        return "swapped halves" if self.target_units == 2 == self.source_units else "reordered pieces"

    def scaled(self, target: int, source: int) -> tuple[Run, ...] | None:
        """The runs in rows (columns) of a weight with ``target`` and a pair with ``source`` of them; None where they do
        not fit."""
        known = self._scaled
        if (target, source) not in known:
            known[target, source] = self._scale(target, source)
        return known[target, source]

    @cached_property
    def _scaled(self) -> dict[tuple[int, int], tuple[Run, ...] | None]:
        return {}  # a model has many blocks of few shapes

    def _scale(self, target: int, source: int) -> tuple[Run, ...] | None:
        unit, rest = divmod(target, self.target_units)
        if rest or unit * self.source_units != source:
            return None
        for weave, rows in ((self.woven, target), (self.source_woven, source)):
            if weave is not None and rows % (weave.pieces * weave.in_turn):
                return None
        return tuple(Run(run.target * unit, run.source * unit, run.size * unit) for run in self.runs)


@lru_cache(maxsize=64)
def row_map(placement: Placement, target: int, source: int) -> npt.NDArray[np.int32]:
    """For each of ``target`` rows of a weight: which of the ``source`` rows of the pair is for it."""
    runs = placement.scaled(target, source)
    assert runs is not None
    rows = np.concatenate([np.arange(run.source, run.source + run.size, dtype=np.int32) for run in runs])
    if placement.source_woven is not None:
        rows = np.argsort(placement.source_woven.order(source)).astype(np.int32)[rows]
    if placement.woven is not None:
        rows = rows[placement.woven.order(target)]
    return np.ascontiguousarray(rows)


WHOLE = Placement()


def placement(weights: Weights, source: Layout, target: Layout) -> Placement:
    """Where the pieces of ``source`` (as a file has them) lie in ``target`` (as a model has them)."""
    if source == target and not target.interleaved and not weights.square:
        return WHOLE
    source_at = _offsets(weights, source)
    target_at = _offsets(weights, target)
    runs: list[Run] = []
    for piece in target.pieces:
        if piece not in source_at:
            continue
        run = Run(target_at[piece], source_at[piece], weights.sizes[piece])
        last = runs[-1] if runs else None
        if last and last.target + last.size == run.target and last.source + last.size == run.source:
            runs[-1] = Run(last.target, last.source, last.size + run.size)
        else:
            runs.append(run)
    return Placement(
        weights.axis,
        tuple(runs),
        _units(weights, target),
        _units(weights, source),
        _weave(target),
        _weave(source),
        weights.square,
    )


def _weave(layout: Layout) -> Weave | None:
    return Weave(len(layout.pieces), layout.interleaved) if layout.interleaved else None


def _offsets(weights: Weights, layout: Layout) -> dict[str, int]:
    sizes = [weights.sizes[piece] for piece in layout.pieces]
    return dict(zip(layout.pieces, accumulate([0, *sizes[:-1]]), strict=True))


def _units(weights: Weights, layout: Layout) -> int:
    return sum(weights.sizes[piece] for piece in layout.pieces)
