"""The matrices of a formula as the kernels take them; Tucker's down factors are made on the way."""

from __future__ import annotations

from dataclasses import dataclass, field

from .. import native_types
from ..algorithms.formula import Core, Fold, Matrix
from ..terms import Rectangle, Term, WeightPlan
from .index_maps import col_index, row_index
from .jobs import ITEMSIZE, Lowered, compute_dtype
from .operands import Operands


@dataclass(slots=True)
class Matrices:
    """Turns tensors into matrices. What has to be made first goes to ``lowered.made``."""

    operands: Operands
    lowered: Lowered
    _cores: dict[tuple[int, Core, str], int] = field(default_factory=dict)

    def matrix(
        self, matrix: Matrix, term: Term, rectangle: Rectangle, weight: WeightPlan, inputs: int | None = None
    ) -> native_types.Matrix:
        """The matrix under a rectangle of the weight. ``inputs``: its columns are that many input channels."""
        geometry, down, up = weight.geometry, matrix.down, matrix.up or matrix.down
        fold = matrix.col_fold if inputs is None else Fold(geometry.kernel, inputs)
        row, row_map = row_index(self.operands, matrix.row_fold, term.cut, rectangle.rows) if up.row else (0, 0)
        col, col_map = col_index(self.operands, fold, term.cut, rectangle.cols, geometry) if down.col else (0, 0)
        down_at, down_dtype = self.tensor(down.tensor, term, weight)
        down_at += col * down.col * ITEMSIZE[down_dtype]
        if matrix.up is None:
            down_at += row * down.row * ITEMSIZE[down_dtype]
            return down_at, down_dtype, down.row, down.col, 0, down_dtype, 0, 0, -1, row_map, col_map
        up_at, up_dtype = self.tensor(up.tensor, term, weight)
        up_at += row * up.row * ITEMSIZE[up_dtype]
        factors = (down_at, down_dtype, down.row, down.col, up_at, up_dtype, up.row, up.col)
        return *factors, matrix.rank, row_map, col_map

    def tensor(self, tensor: int | Core, term: Term, weight: WeightPlan) -> tuple[int, str]:
        """(address, dtype) of a tensor of the file, or of what is made of two."""
        if isinstance(tensor, Core):
            return self._core(tensor, term, weight)
        return self.operands.address(term.entry, tensor), self.operands.dtype(term.entry, tensor)

    def _core(self, core: Core, term: Term, weight: WeightPlan) -> tuple[int, str]:
        """Has the factor made, once: for every element of the kernel, its slice of the core times down."""
        dtype = compute_dtype(weight.geometry)
        key = (self.operands.address(term.entry, core.core), core, dtype)
        if key not in self._cores:
            self._cores[key] = address = self.operands.scratch(core.size * ITEMSIZE[dtype])
            up_at, up_dtype = self.tensor(core.core, term, weight)
            down = (*self.tensor(core.down, term, weight), core.inputs, 1)
            strides = (core.inputs * core.kernel, core.kernel)
            for k in range(core.kernel):
                at = address + k * ITEMSIZE[dtype]
                up = (up_at + k * ITEMSIZE[up_dtype], up_dtype, core.inner * core.kernel, core.kernel)
                made = (*down, *up, core.inner, 0, 0, 1.0)
                self.lowered.made.append((at, at, core.rank, core.inputs, *strides, *strides, dtype, [made]))
                self.lowered.made_owners.append(weight)
        return self._cores[key], dtype
