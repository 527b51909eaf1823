"""Which row or column of a file's matrix serves each row or column of a weight: an offset, or a map."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..algorithms.formula import Fold
from ..geometry import Geometry
from ..terms import Cut, Range
from .operands import IndexMap, Operands


def row_index(operands: Operands, fold: Fold | None, cut: Cut, rows: Range) -> tuple[int, int]:
    """(first row, address of a map or 0) for these rows of the weight."""
    begin, count = rows[0] - cut.rows[0], rows[1] - rows[0]
    if cut.row_map is None:
        return (
            (cut.up_row + begin, 0)
            if fold is None
            else (0, operands.index_map(_counted(cut.up_row + begin, count, fold)))
        )
    if fold is None:
        return 0, operands.index_map(cut.row_map) + begin * cut.row_map.itemsize
    return 0, operands.index_map(_folded(cut.row_map[begin : begin + count], fold))


def col_index(operands: Operands, fold: Fold | None, cut: Cut, cols: Range, geometry: Geometry) -> tuple[int, int]:
    """The same for columns, which may lie in another order in memory."""
    begin, order = cut.down_col + cols[0] - cut.cols[0], geometry.column_map
    if fold is None:
        return (begin, 0) if order is None else (0, operands.index_map(order))
    return 0, operands.index_map(_counted(begin, cols[1] - cols[0], fold) if order is None else _folded(order, fold))


@lru_cache(maxsize=256)
def _counted(begin: int, count: int, fold: Fold) -> IndexMap:
    """A model has many weights of few shapes."""
    return _folded(np.arange(begin, begin + count, dtype=np.int32), fold)


def _folded(indices: IndexMap, fold: Fold) -> IndexMap:
    return np.ascontiguousarray(indices // fold.step % fold.size, dtype=np.int32)
