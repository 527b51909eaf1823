"""Factors that no file holds: of products of two matrices, and of what is cut down to fewer ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from ..algorithms.formula import Core, Fold, Formula, Matrix, View
from ..pairing import Pair
from .exact_rank import Shapes, small_form

Values = Callable[[int], torch.Tensor]  # a tensor of the file, as float32 in one dimension


class Made(NamedTuple):
    """``up`` [rows, rank] and ``down`` [rank, columns] in float32. ``retained`` is the part of the squared Frobenius
    norm of the whole that they hold: 1 where nothing was cut off."""

    up: torch.Tensor
    down: torch.Tensor
    retained: float = 1.0


def make(formula: Pair | Formula, shapes: Shapes, values: Values, most: int) -> Made:
    """The factors of a formula without its scale, of ``most`` ranks at most unless that is 0.

    An elementwise product of ``U V`` and ``X Y`` has the products of each column of U with each of X, and of each row
    of V with each of Y. A Kronecker product is the same of matrices whose rows and columns are repeated. What is cut
    off is what a singular value decomposition has last (Eckart and Young).
    """
    matrices = (formula.matrix,) if isinstance(formula, Pair) else formula.matrices
    parts = [_factors(matrix, shapes, values) for matrix in matrices]
    if most and len(parts) == 2 and all(matrix.row_fold and matrix.col_fold for matrix in matrices):
        # The singular values of a Kronecker product are the products of both factors' own.
        return _folded_product(matrices, [_cut(part, 0) for part in parts], most)
    whole = _folded_product(matrices, parts, 0) if len(parts) == 2 else parts[0]
    return whole if not most or len(whole.down) <= most else _cut(whole, most)


def _factors(matrix: Matrix, shapes: Shapes, values: Values) -> Made:
    rows, cols = small_form(matrix, shapes)
    if matrix.up is not None:
        return Made(_view(matrix.up, rows, matrix.rank, values), _view(matrix.down, matrix.rank, cols, values))
    whole = _view(matrix.down, rows, cols, values)
    if rows <= cols:
        return Made(_unit(rows), whole)
    return Made(whole, _unit(cols))


def _unit(size: int) -> torch.Tensor:
    return torch.eye(size, dtype=torch.float32, device="cpu")  # whatever the defaults are


def _view(view: View, rows: int, cols: int, values: Values) -> torch.Tensor:
    tensor = view.tensor
    flat = _core(tensor, values) if isinstance(tensor, Core) else values(tensor)
    return flat.as_strided((rows, cols), (view.row, view.col))


def _core(core: Core, values: Values) -> torch.Tensor:
    outer = values(core.core).view(core.rank, core.inner, core.kernel)
    inner = values(core.down).view(core.inner, core.inputs)
    return torch.einsum("rik,ij->rjk", outer, inner).reshape(-1)


def _folded_product(matrices: tuple[Matrix, ...], parts: list[Made], most: int) -> Made:
    """All pairs of ranks, or the ``most`` pairs of largest product where the parts' ranks are singular values."""
    (up1, down1, _), (up2, down2, _) = parts
    weight = (up1.norm(dim=0)[:, None] * up2.norm(dim=0)).flatten() * (
        (down1.norm(dim=1)[:, None] * down2.norm(dim=1)).flatten()
    )
    kept = weight.argsort(descending=True)[:most] if most else torch.arange(len(weight), device="cpu")
    first, second = kept // len(down2), kept % len(down2)
    rows = _fold_out([matrix.row_fold for matrix in matrices], len(up1))
    cols = _fold_out([matrix.col_fold for matrix in matrices], down1.shape[1])
    up = up1[rows[0]][:, first] * up2[rows[1]][:, second]
    down = down1[:, cols[0]][first] * down2[:, cols[1]][second]
    energy = weight.double().square()
    total = float(energy.sum())
    return Made(up, down, float(energy[kept].sum()) / total if most and total else 1.0)


def _fold_out(folds: list[Fold | None], size: int) -> list[torch.Tensor]:
    """The index in each of two small matrices for every row (column) of the whole."""
    whole = max((fold.step * fold.size for fold in folds if fold), default=size)
    index = torch.arange(whole, device="cpu")
    return [index if fold is None else index // fold.step % fold.size for fold in folds]


def _cut(factors: Made, most: int) -> Made:
    """The same product by its singular values, the largest ``most`` of them (all for 0)."""
    rows, small = torch.linalg.qr(factors.up.double())
    cols, other = torch.linalg.qr(factors.down.double().t())
    u, s, v = torch.linalg.svd(small @ other.t(), full_matrices=False)
    kept = slice(0, most or len(s))
    root = s[kept].sqrt()
    up, down = rows @ u[:, kept] * root, root[:, None] * (v[kept] @ cols.t())
    total = float(s.square().sum())
    return Made(up.float(), down.float(), float(s[kept].square().sum()) / total if total else 1.0)
