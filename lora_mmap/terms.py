"""The terms that fall on one weight, and the rectangles they cover."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from .algorithms.formula import Formula
from .geometry import Geometry
from .pairing import Pair
from .targets.branch_place import BranchPlace

# A half-open range of rows or columns.
Range = tuple[int, int]


class Cut(NamedTuple):
    """A rectangle of a weight, which takes the rows of the file's matrix from ``up_row`` on and its columns from
    ``down_col`` on. With a ``row_map``, row ``m`` of the weight takes row ``row_map[m]`` of that matrix instead.
    ``parameter`` is what the file calls the weight in its module."""

    geometry: Geometry | BranchPlace
    rows: Range
    cols: Range
    up_row: int = 0
    down_col: int = 0
    row_map: npt.NDArray[np.int32] | None = None
    parameter: str = "weight"


class Term(NamedTuple):
    """One pair or formula on one rectangle of a weight, at the user's strength."""

    entry: int
    formula: Pair | Formula
    strength: float
    cut: Cut

    @property
    def replaces(self) -> bool:
        """True where it takes the place of the pristine weight."""
        return isinstance(self.formula, Formula) and self.formula.replaces

    def covers(self, rows: Range, cols: Range) -> bool:
        """True when the rectangle lies in this term's."""
        (top, bottom), (left, right) = self.cut.rows, self.cut.cols
        return top <= rows[0] and rows[1] <= bottom and left <= cols[0] and cols[1] <= right


class Rectangle(NamedTuple):
    """Rows and columns of a weight, and the terms that cover all of them."""

    rows: Range
    cols: Range
    terms: list[Term]

    @property
    def area(self) -> int:
        return (self.rows[1] - self.rows[0]) * (self.cols[1] - self.cols[0])


class Sharer(NamedTuple):
    """Another parameter that has bytes of a weight in common, which begins so many bytes after it."""

    path: str
    parameter: torch.Tensor
    offset: int


class Planned:
    """The terms that fall on one place, in the order of the contract."""

    __slots__ = ("terms",)

    def __init__(self) -> None:
        self.terms: list[Term] = []


class WeightPlan(Planned):
    """One storage region and the terms that fall on it. ``sharers`` are those parameters of the model, known by being
    others, that the terms change too."""

    __slots__ = ("geometry", "sharers")

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.geometry = geometry
        self.sharers: list[Sharer] = []

    def at(self, place: Geometry) -> WeightPlan:
        """The same terms on the same elements after the weight has moved."""
        moved = WeightPlan(place)
        moved.sharers = self.sharers
        names = {id(alias): alias.at(place) for alias in self.aliases()}
        moved.terms = [
            term._replace(cut=term.cut._replace(geometry=names[id(term.cut.geometry)])) for term in self.terms
        ]
        return moved

    def rectangles(self) -> list[Rectangle]:
        """Disjoint rectangles with the terms that cover each of them; what no term covers is left out."""
        first = self.terms[0].cut
        if all(term.cut.rows == first.rows and term.cut.cols == first.cols for term in self.terms):
            return [Rectangle(first.rows, first.cols, self.terms)]
        found = []
        for rows in _between(term.cut.rows for term in self.terms):
            across = [term for term in self.terms if term.covers(rows, term.cut.cols)]
            for cols in _between(term.cut.cols for term in across):
                covering = [term for term in across if term.covers(rows, cols)]
                if covering:
                    found.append(Rectangle(rows, cols, covering))
        return found

    @property
    def is_covered(self) -> bool:
        """True when the terms leave no element of the weight out."""
        geometry = self.geometry
        return sum(rectangle.area for rectangle in self.rectangles()) == geometry.rows * geometry.cols

    def aliases(self) -> list[Geometry]:
        """The weight under every name that terms call it by, each once."""
        found = {id(term.cut.geometry): term.cut.geometry for term in self.terms}
        return [geometry for geometry in found.values() if isinstance(geometry, Geometry)]

    @property
    def is_additive(self) -> bool:
        """True when the terms' sum can be computed without the pristine values."""
        return all(isinstance(term.formula, Pair) or term.formula.is_additive for term in self.terms)

    def row_maps(self) -> list[npt.NDArray[np.int32]]:
        """The row maps of its terms, each once."""
        return list({id(m): m for term in self.terms if (m := term.cut.row_map) is not None}.values())


def _between(ranges: Iterable[Range]) -> list[Range]:
    """The pieces that all edges together cut the axis into."""
    edges = sorted({edge for begin_and_end in ranges for edge in begin_and_end})
    return list(pairwise(edges))
