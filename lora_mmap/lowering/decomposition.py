"""DoRA's magnitude over norm for the rows or input channels of a term, computed before it is fused."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .. import native_types
from ..algorithms.formula import Fold, Magnitude
from ..terms import Cut, Rectangle, Term, WeightPlan
from .index_maps import col_index, row_index
from .jobs import ITEMSIZE, Place, compute_dtype, job_of, place_of
from .matrices import Matrices


class Gain(NamedTuple):
    """The factors of the rows or columns of one term's rectangle; ``groups`` is the channel of each column."""

    address: int
    dtype: str
    by_columns: bool
    groups: int
    cut: Cut

    def matrix(self, rectangle: Rectangle) -> native_types.Matrix:
        """The factors under a part of the term's rectangle."""
        row, col, col_map = rectangle.rows[0] - self.cut.rows[0], rectangle.cols[0] - self.cut.cols[0], 0
        if not self.by_columns:
            at, strides = row, (1, 0)
        elif self.groups:
            at, strides, col_map = 0, (0, 1), self.groups + col * np.dtype(np.int32).itemsize
        else:
            at, strides = col, (0, 1)
        address = self.address + at * ITEMSIZE[self.dtype]
        return address, self.dtype, *strides, 0, self.dtype, 0, 0, -1, 0, col_map


def gain_of(
    term: Term, magnitude: Magnitude, inner: native_types.Term, weight: WeightPlan, base: Place, matrices: Matrices
) -> Gain:
    """Has the factors computed. ``inner`` is what is added before the norm is taken."""
    cut, geometry, operands = term.cut, weight.geometry, matrices.operands
    rectangle, by_columns = Rectangle(cut.rows, cut.cols, []), magnitude.inputs is not None
    groups = map_at = 0
    if magnitude.inputs is None:
        first, map_at = row_index(operands, None, cut, cut.rows)
        count = cut.rows[1] - cut.rows[0]
    elif geometry.kernel == 1 and geometry.column_map is None:
        first, count = cut.down_col, cut.cols[1] - cut.cols[0]
    else:
        first, count = 0, magnitude.inputs
        _, groups = col_index(operands, Fold(geometry.kernel, count), cut, cut.cols, geometry)
    address, given = matrices.tensor(magnitude.tensor, term, weight)
    dtype = compute_dtype(geometry)
    out = operands.scratch(count * ITEMSIZE[dtype])
    job = job_of(geometry, place_of(geometry), base, rectangle, [inner])
    matrices.lowered.gains.append(
        (job, by_columns, groups, count, address + first * ITEMSIZE[given], given, map_at, out)
    )
    matrices.lowered.gains_owners.append(weight)
    return Gain(out, dtype, by_columns, groups, cut)
