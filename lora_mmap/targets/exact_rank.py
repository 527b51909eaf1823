"""What of an adapter's arithmetic is a product of two factors, and of which rank. From shapes alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..algorithms.formula import BASE, Core, Formula, Matrix
from ..pairing import Pair

Shapes = Sequence[tuple[int, ...]]


def obstacle(formula: Pair | Formula) -> str:
    """Why something cannot be put beside a weight whatever its rank, or an empty text."""
    if isinstance(formula, Pair):
        return ""
    if formula.magnitude is not None:
        return "DoRA needs the norms of the weight, which cannot be read here"
    if formula.times == BASE:
        return "(IA)3 scales the weight, which cannot be written to"
    if formula.replaces:
        return "a replaced parameter needs a weight that can be written to"
    return ""


def exact_rank(formula: Pair | Formula, shapes: Shapes) -> int:
    """Ranks that hold it without loss: of a product element by element and of a Kronecker product, the product of
    both. ``shapes`` are those of the file's tensors."""
    if isinstance(formula, Pair):
        return formula.rank
    return math.prod(
        min(small_form(matrix, shapes)) if matrix.up is None else matrix.rank for matrix in formula.matrices
    )


def ranks(formula: Pair | Formula, shapes: Shapes, svd_rank: int) -> int:
    """Ranks that it gets: ``svd_rank`` at most, if that is not 0."""
    exact = exact_rank(formula, shapes)
    return min(exact, svd_rank) if svd_rank else exact


def small_form(matrix: Matrix, shapes: Shapes) -> tuple[int, int]:
    """Rows and columns of the file's own matrix, before its rows and columns are folded out."""
    down, up = matrix.down, matrix.up
    if up is not None:
        assert isinstance(up.tensor, int)
        size = down.tensor.size if isinstance(down.tensor, Core) else math.prod(shapes[down.tensor])
        return math.prod(shapes[up.tensor]) // matrix.rank, size // matrix.rank
    assert isinstance(down.tensor, int)
    size = math.prod(shapes[down.tensor])
    return (size // down.row, down.row) if down.col == 1 else (down.col, size // down.col)
