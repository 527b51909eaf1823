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


@dataclass(frozen=True)
class Placement:
    """What of a pair lands where in one weight. ``runs`` are in units, of which the weight's axis has ``target_units``
    and the pair's ``source_units``. ``interleave`` > 1: row ``k`` of the weight is row ``k % interleave`` of its units.
    """

    axis: Axis = "rows"
    runs: tuple[Run, ...] = (Run(0, 0, 1),)
    target_units: int = 1
    source_units: int = 1
    interleave: int = 1
    square: bool = False

    @cached_property
    def is_whole(self) -> bool:
        """True when the weight and the pair are the same matrix, row by row."""
        return self.interleave == 1 and self.runs == (Run(0, 0, self.target_units),) and not self._is_section

    @property
    def _is_section(self) -> bool:
        return self.target_units != self.source_units

    @cached_property
    def layout(self) -> str | None:
        """The name of the permutation, or None where the order is the same."""
        if self.interleave > 1:
            return f"interleaved by {self.interleave}"
        if len(self.runs) < 2:
            return None
        return "swapped halves" if self.target_units == 2 == self.source_units else "reordered pieces"

    def scaled(self, target: int, source: int) -> tuple[Run, ...] | None:
        """The runs in rows (columns) of a weight with ``target`` and a pair with ``source`` of them; None where they do
        not fit."""
        unit, rest = divmod(target, self.target_units)
        if rest or unit * self.source_units != source:
            return None
        return tuple(Run(run.target * unit, run.source * unit, run.size * unit) for run in self.runs)


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
        len(target.pieces) if target.interleaved else 1,
        weights.square,
    )


def _offsets(weights: Weights, layout: Layout) -> dict[str, int]:
    sizes = [weights.sizes[piece] for piece in layout.pieces]
    return dict(zip(layout.pieces, accumulate([0, *sizes[:-1]]), strict=True))


def _units(weights: Weights, layout: Layout) -> int:
    return sum(weights.sizes[piece] for piece in layout.pieces)


@lru_cache(maxsize=64)
def interleaving(rows: int, pieces: int) -> npt.NDArray[np.int32]:
    """For each of ``rows`` rows of an interleaved weight: which row of the stacked pieces it is."""
    order = np.arange(rows, dtype=np.int32).reshape(pieces, rows // pieces).T
    return np.ascontiguousarray(order.ravel())
