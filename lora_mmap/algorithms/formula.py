"""What tensors of a file do to one parameter, as arithmetic on matrices: the terms of docs/numerics.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

BASE: Literal["base"] = "base"  # the pristine parameter itself


class Core(NamedTuple):
    """The down factor of a Tucker form, [rank, inputs * kernel]: ``core`` [rank, inner, *kernel] times ``down`` [inner,
    inputs], both tensors of the file. It is made before it is used."""

    core: int
    down: int
    rank: int
    inner: int
    inputs: int
    kernel: int

    @property
    def size(self) -> int:
        return self.rank * self.inputs * self.kernel


class View(NamedTuple):
    """A tensor of the file, or a factor made of two, as a matrix: element [i, j] lies ``i * row + j * col`` elements
    from the first. A stride of 0 repeats."""

    tensor: int | Core
    row: int
    col: int

    @property
    def transposed(self) -> View:
        return View(self.tensor, self.col, self.row)


class Fold(NamedTuple):
    """Index ``i`` of the file's matrix is index ``i // step % size`` of a smaller one: a Kronecker factor's."""

    step: int
    size: int


class Matrix(NamedTuple):
    """``up @ down``, or, without ``up``, the values at ``down`` themselves."""

    down: View
    up: View | None = None
    rank: int = -1
    row_fold: Fold | None = None
    col_fold: Fold | None = None

    @property
    def views(self) -> tuple[View, ...]:
        return (self.down,) if self.up is None else (self.down, self.up)


class Magnitude(NamedTuple):
    """DoRA's norms: the tensor that holds one for every row, or for every one of ``inputs`` input channels.

    ``strength_inside``: the user's strength scales what is added before the norm is taken (PEFT), not the whole change.
    """

    tensor: int
    inputs: int | None
    strength_inside: bool


@dataclass(frozen=True, slots=True)
class Formula:
    """One term, or what takes the parameter's place (``replaces``). ``scale`` is without the user's strength.

    ``inputs``: the columns of ``matrix`` are that many input channels, each for all of the kernel. ``as_stored``: the
    values lie as the model stores the parameter, transposed or not. ``kernel``: the convolution's, if the file tells.
    """

    scale: float
    matrix: Matrix
    times: Matrix | Literal["base"] | None = None
    magnitude: Magnitude | None = None
    replaces: bool = False
    inputs: int | None = None
    as_stored: bool = False
    kernel: tuple[int, ...] = ()

    @property
    def tensors(self) -> list[int]:
        """The tensors of the file that it takes, each once."""
        found: dict[int, None] = {}
        for matrix in self.matrices:
            for view in matrix.views:
                parts = (view.tensor,) if isinstance(view.tensor, int) else view.tensor[:2]
                found.update(dict.fromkeys(parts))
        if self.magnitude is not None:
            found[self.magnitude.tensor] = None
        return list(found)

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        return (self.matrix, self.times) if isinstance(self.times, Matrix) else (self.matrix,)

    @property
    def cores(self) -> list[Core]:
        """The factors that have to be made first."""
        views = [view for matrix in self.matrices for view in matrix.views]
        return list(dict.fromkeys(view.tensor for view in views if isinstance(view.tensor, Core)))

    @property
    def scratch_nbytes(self) -> int:
        """About what the factors take that have to be made first: fp32 for most weights."""
        return sum(4 * core.size for core in self.cores)

    @property
    def n_made(self) -> int:
        """The jobs that have to run before the one that adds the term, at most: see ``lowering``."""
        return sum(core.kernel for core in self.cores) + (self.magnitude is not None) + self.replaces

    @property
    def is_additive(self) -> bool:
        """True when what it adds does not depend on the weight."""
        return self.magnitude is None and self.times != BASE and not self.replaces

    @property
    def is_nothing(self) -> bool:
        """True when it changes no weight, whatever its tensors hold."""
        return self.scale == 0 and self.magnitude is None and not self.replaces


def product(down: int, up: int, rows: int, cols: int, rank: int) -> Matrix:
    """``up`` [rows, rank] times ``down`` [rank, cols], both as they lie in the file."""
    return Matrix(View(down, cols, 1), View(up, rank, 1), rank)


def whole(tensor: int, cols: int) -> Matrix:
    """The values of a tensor, [rows, cols]."""
    return Matrix(View(tensor, cols, 1))
