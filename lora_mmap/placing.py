"""Where the tensors of one group lie in the weights that their name leads to, by what the tables say and by shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .algorithms.recognised import Form
from .families.placement import Placement, row_map
from .geometry import Geometry
from .outcomes import Landing
from .targets.branch_place import BranchPlace
from .terms import Cut, Range


class Target(NamedTuple):
    """One module that a group may belong to, and how."""

    number: int  # in the model's index
    module: str
    placement: Placement


def landings(target: Target, extent: tuple[int, int], form: Form) -> list[Landing] | None:
    """The sections of a weight of ``extent`` (rows, columns) that a matrix of ``form`` lands on, or None where it does
    not fit. An unknown side of ``form`` fits everything."""
    placement = target.placement
    along, across = (0, 1) if placement.axis == "rows" else (1, 0)
    if form[across] not in (None, extent[across]):
        return None
    if placement.square and extent[0] != extent[1] * placement.target_units:
        return None
    total = form[along]
    if total is None:
        total = extent[along] // placement.target_units * placement.source_units
    runs = placement.scaled(extent[along], total)
    if runs is None:
        return None
    if placement.is_woven:
        return [Landing(target.module, layout=placement.layout)]
    if len(runs) > 1 and sum(run.size for run in runs) == extent[along] == total:
        return [Landing(target.module, layout=placement.layout)]
    found = []
    for run in runs:
        where = _part(run.target, run.size, extent[along])
        source = _part(run.source, run.size, total)
        sections = {"rows": (where, None, source, None), "cols": (None, where, None, source)}
        rows, cols, factor_rows, factor_cols = sections[placement.axis]
        found.append(Landing(target.module, rows, cols, placement.layout, factor_rows, factor_cols))
    return found


def cuts(form: Form, placement: Placement, geometry: Geometry | BranchPlace, together: bool = False) -> list[Cut]:
    """What :func:`landings` says, for the kernels: the rectangles of a weight that a matrix of ``form`` falls on. Rows
    that are merely permuted are one rectangle if they are to stay ``together``."""
    rows, cols = (0, geometry.rows), (0, geometry.cols)
    if placement.is_whole:
        return [Cut(geometry, rows, cols)]
    along_rows = placement.axis == "rows"
    here = geometry.rows if along_rows else geometry.cols
    total = form[0] if along_rows else form[1]
    if total is None:
        total = here // placement.target_units * placement.source_units
    runs = placement.scaled(here, total)
    assert runs is not None
    if placement.is_woven or (together and along_rows and sum(run.size for run in runs) == here):
        return [Cut(geometry, rows, cols, row_map=row_map(placement, here, total))]
    if along_rows:
        return [Cut(geometry, (run.target, run.target + run.size), cols, up_row=run.source) for run in runs]
    return [Cut(geometry, rows, (run.target, run.target + run.size), down_col=run.source) for run in runs]


def overlapping(one: Sequence[Cut], other: Sequence[Cut]) -> bool:
    """True when some element belongs to both."""
    return any(a.geometry is b.geometry and _meet(a.rows, b.rows) and _meet(a.cols, b.cols) for a in one for b in other)


def _part(begin: int, size: int, total: int) -> Range | None:
    return None if size == total else (begin, begin + size)


def _meet(one: Range, other: Range) -> bool:
    return one[0] < other[1] and other[0] < one[1]
