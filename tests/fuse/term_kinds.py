"""Terms of every kind as the contract states them, and random ones: every matrix that can be written down."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from fusion_reference import FACTORS, NAMES, Term, fma32, fma64, job, random_tensor, to_numpy


@dataclass
class Matrix:
    """``up @ down``, or ``down`` itself without ``up``."""

    down: torch.Tensor
    up: torch.Tensor | None = None
    row_map: torch.Tensor | None = None
    col_map: torch.Tensor | None = None

    def as_tuple(self):
        maps = [0 if m is None else m.data_ptr() for m in (self.row_map, self.col_map)]
        down = (self.down.data_ptr(), NAMES[self.down.dtype], *self.down.stride())
        if self.up is None:
            return (*down, 0, down[1], 0, 0, -1, *maps)
        return (*down, self.up.data_ptr(), NAMES[self.up.dtype], *self.up.stride(), self.down.shape[0], *maps)

    def values(self, shape, compute):
        """At full size."""
        fma = fma64 if compute is np.float64 else fma32
        if self.up is None:
            return self._mapped(to_numpy(self.down, compute))
        return Term(self.down, self.up, 1.0, self.row_map, self.col_map).added(np.zeros(shape, compute), None, fma)

    def _mapped(self, values):
        if self.row_map is not None:
            values = values[self.row_map.numpy()]
        if self.col_map is not None:
            values = values[:, self.col_map.numpy()]
        return np.ascontiguousarray(values)


@dataclass
class AnyTerm:
    matrix: Matrix
    scale: float
    times: Matrix | Literal["base"] | None = None
    gain: Matrix | None = None
    weight: float = 1.0

    def as_tuple(self):
        plain = (*self.matrix.as_tuple(), self.scale)
        if self.times is None and self.gain is None:
            return plain
        times = self.times.as_tuple() if isinstance(self.times, Matrix) else self.times
        return (*plain, times, None if self.gain is None else self.gain.as_tuple(), self.weight)

    def change(self, acc, base, fma):
        """What it adds without its gain."""
        compute = acc.dtype.type
        scale = compute(self.scale)
        if self.times is None and self.matrix.up is not None:
            maps = self.matrix.row_map, self.matrix.col_map
            return Term(self.matrix.down, self.matrix.up, self.scale, *maps).added(acc, base, fma)
        with np.errstate(all="ignore"):
            matrix = self.matrix.values(acc.shape, compute)
            if self.times is None:
                return fma(matrix, np.full_like(acc, scale), acc)
            times = base if self.times == "base" else self.times.values(acc.shape, compute)
            return fma(matrix * scale, times, acc)

    def added(self, acc, base, fma):
        if self.gain is None:
            return self.change(acc, base, fma)
        with np.errstate(all="ignore"):
            v = base + self.change(np.zeros_like(acc), base, fma)
            gain = np.broadcast_to(self.gain.values(acc.shape, acc.dtype.type), acc.shape)
            return fma(fma(gain, v, -base), np.full_like(acc, self.weight), acc)


@dataclass
class Norms:
    """One job of gains(): of ``base`` and a term; ``out`` is filled with ones."""

    base: torch.Tensor
    term: AnyTerm | Term
    by_columns: bool
    magnitude: torch.Tensor
    groups: torch.Tensor | None = None
    magnitude_map: torch.Tensor | None = None
    out: torch.Tensor = field(init=False)

    def __post_init__(self):
        count = self.magnitude.numel() if self.magnitude_map is None else self.magnitude_map.numel()
        self.out = torch.ones(count, dtype=torch.float64 if self.base.dtype == torch.float64 else torch.float32)

    def as_tuple(self):
        groups, magnitudes = (0 if m is None else m.data_ptr() for m in (self.groups, self.magnitude_map))
        norms = (self.magnitude.data_ptr(), NAMES[self.magnitude.dtype], magnitudes, self.out.data_ptr())
        return (job(self.base, [self.term]), self.by_columns, groups, self.out.numel(), *norms)

    def expected(self):
        compute = np.float64 if self.base.dtype == torch.float64 else np.float32
        base = to_numpy(self.base, compute)
        with np.errstate(all="ignore"):
            change = self.term.added(np.zeros_like(base), base, fma64 if compute is np.float64 else fma32)
            v = (base + change).astype(np.float64)
            sums = self._over_columns(v * v) if self.by_columns else over_rows(v * v)
            magnitude = to_numpy(self.magnitude, np.float64).reshape(-1)
            if self.magnitude_map is not None:
                magnitude = magnitude[self.magnitude_map.numpy()]
            gains = np.where(sums == 0, 0, magnitude / np.sqrt(sums)).astype(compute)
        return torch.from_numpy(gains), bool(np.isfinite(sums).all() and np.isfinite(gains).all())

    def _over_columns(self, squares):
        sums = np.zeros(squares.shape[1])
        for row in squares:
            sums += row
        if self.groups is None:
            return sums
        grouped = np.zeros(self.out.numel())
        for group, total in zip(self.groups.tolist(), sums, strict=True):
            grouped[group] += total
        return grouped


def over_rows(squares):
    lanes = np.zeros((squares.shape[0], 16))
    for n in range(squares.shape[1]):
        lanes[:, n % 16] += squares[:, n]
    sums = np.zeros(squares.shape[0])
    for lane in lanes.T:
        sums += lane
    return sums


def folded(count, step, size):
    """A Kronecker factor's map."""
    return (torch.arange(count) // step % size).to(torch.int32)


def whole_matrices(generator, rows, cols, dtype):
    """(name, whole matrix) for every way in which one may lie."""

    def tensor(m, n):
        return random_tensor(generator, m, n, dtype)

    def random_map(count, size):
        return torch.randint(0, size, (count,), generator=generator).to(torch.int32)

    yield "contiguous", Matrix(tensor(rows, cols))
    yield "transposed", Matrix(tensor(cols, rows).t())
    yield "spread", Matrix(tensor(2 * rows, 3 * cols)[1::2, 2::3])
    yield "for each row", Matrix(tensor(rows, 1).expand(rows, cols))
    yield "for each column", Matrix(tensor(1, cols).expand(rows, cols))
    yield "one value", Matrix(tensor(1, 1).expand(rows, cols))
    yield "outer Kronecker", Matrix(tensor(3, 4), None, folded(rows, 5, 3), folded(cols, 7, 4))
    yield "inner Kronecker", Matrix(tensor(5, 7), None, folded(rows, 1, 5), folded(cols, 1, 7))
    yield "strided Kronecker", Matrix(tensor(5, 21)[:, ::3], None, folded(rows, 1, 5), folded(cols, 1, 7))
    yield "any map", Matrix(tensor(9, 2 * cols), None, random_map(rows, 9), random_map(cols, 2 * cols))
    yield "rows mapped", Matrix(tensor(9, cols), None, random_map(rows, 9))
    yield "columns mapped", Matrix(tensor(rows, 9), None, None, random_map(cols, 9))


def products(generator, rows, cols, rank, dtype, up_dtype=None):
    """(name, product of factors) likewise."""

    def down(m, n):
        return random_tensor(generator, m, n, dtype)

    def up(m, n):
        return random_tensor(generator, m, n, up_dtype or dtype, 0.3)

    yield "contiguous", Matrix(down(rank, cols), up(rows, rank))
    yield "transposed", Matrix(down(cols, rank).t(), up(rank, rows).t())
    yield "spread", Matrix(down(2 * rank, 3 * cols)[::2, 1::3], up(rows, 2 * rank)[:, ::2])
    yield "mapped", Matrix(down(rank, 7), up(5, rank), folded(rows, 1, 5), folded(cols, 1, 7))
    yield "transposed and mapped", Matrix(down(4, rank).t(), up(rank, 3).t(), folded(rows, 5, 3), folded(cols, 7, 4))


class Choice:
    """Random choices of a torch generator."""

    def __init__(self, generator):
        self.generator = generator

    def below(self, end):
        return int(torch.randint(0, end, (), generator=self.generator))

    def of(self, items):
        return items[self.below(len(items))]

    def matrix(self, rows, cols, dtypes=FACTORS):
        if self.below(2):
            return self.of(list(whole_matrices(self.generator, rows, cols, self.of(dtypes))))[1]
        rank = self.of([0, 1, 3, 20, 70])
        return self.of(list(products(self.generator, rows, cols, rank, self.of(dtypes), self.of(dtypes))))[1]

    def gain(self, rows, cols, weight):
        dtype = torch.float64 if weight == torch.float64 else torch.float32
        if self.below(2):
            return Matrix(random_tensor(self.generator, rows, 1, dtype).as_strided((rows, cols), (1, 0)))
        if self.below(2):
            return Matrix(random_tensor(self.generator, 1, cols, dtype).as_strided((rows, cols), (0, 1)))
        values = random_tensor(self.generator, 1, 4, dtype).as_strided((rows, 4), (0, 1))
        return Matrix(values, None, None, folded(cols, 3, 4))

    def term(self, rows, cols, weight, dtypes=FACTORS):
        matrix, scale = self.matrix(rows, cols, dtypes), self.of([0.37, -1.0, 2.5])
        kind = self.below(5)
        if kind == 0:
            return AnyTerm(matrix, scale)
        if kind == 1:
            return AnyTerm(matrix, scale, self.matrix(rows, cols, dtypes))
        if kind == 2:
            return AnyTerm(matrix, scale, "base")
        times = self.matrix(rows, cols, dtypes) if kind == 3 else None
        return AnyTerm(matrix, scale, times, self.gain(rows, cols, weight), self.of([1.0, -0.6]))
