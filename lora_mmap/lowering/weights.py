"""The jobs of all weights of one window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from .. import native_types
from ..algorithms.formula import BASE, Formula, Magnitude, Matrix
from ..pairing import Pair
from ..terms import Rectangle, Term, WeightPlan
from .decomposition import Gain, gain_of
from .jobs import ITEMSIZE, Lowered, Place, Sum, job_of, place_of
from .matrices import Matrices
from .operands import Operands


def lower(weights: Sequence[WeightPlan], operands: Operands, pristine: Mapping[int, Place]) -> Lowered:
    """Lowers weights whose factors ``operands`` has. ``pristine`` says where the pristine values of weights lie, by
    address; of others they are in the weight, or nobody asks: only DoRA's terms need them here."""
    lowered = Lowered()
    matrices = Matrices(operands, lowered)
    for weight in weights:
        _Weight(weight, pristine.get(weight.geometry.address), matrices).lower()
    return lowered


class _Weight:
    def __init__(self, weight: WeightPlan, pristine: Place | None, matrices: Matrices) -> None:
        self._weight = weight
        self._geometry = weight.geometry
        self._matrices = matrices
        self._gains: dict[int, Gain] = {}  # by the term's identity
        self._pristine = pristine or place_of(self._geometry)

    def lower(self) -> None:
        replacing = [term for term in self._weight.terms if term.replaces]
        replaced = self._replaced(replacing[-1]) if replacing else None
        for term in self._weight.terms:
            magnitude = _magnitude(term)
            if magnitude is not None:
                inner, base = self._term(term, _all_of(term)), replaced or self._pristine
                self._gains[id(term)] = gain_of(term, magnitude, inner, self._weight, base, self._matrices)
        sums = self._matrices.lowered.sums[id(self._weight)] = []
        for rectangle in self._weight.rectangles():
            terms = [self._term(term, rectangle) for term in rectangle.terms if not term.replaces]
            sums.append(Sum(self._weight, rectangle, terms, replaced))

    def _replaced(self, term: Term) -> Place:
        """Has the values of the file rounded to the weight's dtype; they take the place of the pristine ones."""
        geometry, lowered = self._geometry, self._matrices.lowered
        place = Place(self._matrices.operands.scratch(geometry.nbytes), geometry.cols, 1)
        rectangle = _all_of(term)
        lowered.made.append(job_of(geometry, place, place, rectangle, [self._term(term, rectangle)]))
        lowered.made_owners.append(self._weight)
        return place

    def _term(self, term: Term, rectangle: Rectangle) -> native_types.Term:
        formula = term.formula
        if isinstance(formula, Pair):
            return self._pair(term, formula, rectangle)
        gain = self._gains.get(id(term))
        matrix = self._matrices.matrix(formula.matrix, term, rectangle, self._weight, formula.inputs)
        scale, outer = _scales(term, formula)
        if formula.times is None and gain is None:
            return *matrix, scale
        times: native_types.Matrix | Literal["base"] | None = None
        if isinstance(formula.times, Matrix):
            times = self._matrices.matrix(formula.times, term, rectangle, self._weight)
        elif formula.times == BASE:
            times = BASE
        return *matrix, scale, times, None if gain is None else gain.matrix(rectangle), outer

    def _pair(self, term: Term, pair: Pair, rectangle: Rectangle) -> native_types.Term:
        """What nearly all terms are, without detours."""
        cut, column_map, operands = term.cut, self._geometry.column_map, self._matrices.operands
        down_dtype, up_dtype = operands.dtype(term.entry, pair.down), operands.dtype(term.entry, pair.up)
        row, col = rectangle.rows[0] - cut.rows[0], rectangle.cols[0] - cut.cols[0]
        up_row, row_map = cut.up_row + row, 0
        if cut.row_map is not None:
            up_row, row_map = 0, operands.index_map(cut.row_map) + row * cut.row_map.itemsize
        return (
            operands.address(term.entry, pair.down) + (cut.down_col + col) * ITEMSIZE[down_dtype],
            down_dtype,
            pair.cols,
            1,
            operands.address(term.entry, pair.up) + up_row * pair.rank * ITEMSIZE[up_dtype],
            up_dtype,
            pair.rank,
            1,
            pair.rank,
            row_map,
            0 if column_map is None else operands.index_map(column_map),
            pair.scale * term.strength,
        )


def _scales(term: Term, formula: Formula) -> tuple[float, float]:
    """What multiplies the matrix, and what multiplies DoRA's whole change."""
    if formula.replaces:
        return formula.scale, 1.0
    if formula.magnitude is not None and not formula.magnitude.strength_inside:
        return formula.scale, term.strength
    return formula.scale * term.strength, 1.0


def _magnitude(term: Term) -> Magnitude | None:
    return term.formula.magnitude if isinstance(term.formula, Formula) else None


def _all_of(term: Term) -> Rectangle:
    return Rectangle(term.cut.rows, term.cut.cols, [])
