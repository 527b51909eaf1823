"""LoHa: alpha / rank * (w1_a @ w1_b) * (w2_a @ w2_b), element by element."""

from __future__ import annotations

import math

from .formula import Core, Formula, Matrix, View, product
from .members import Malformed, Member, Members, floats, same
from .part import Part
from .scaling import GroupScale


def loha(members: Members, scale: GroupScale) -> Part:
    """w?_a [out, rank], w?_b [rank, in * kernel]; rank is w1_b's. With t1 and t2 in Tucker form."""
    (one, rows1, cols1), (other, rows2, cols2) = (_half(members, n) for n in (1, 2))
    rows = same("rows", members["w1_a"], rows1, members["w2_a"], rows2)
    cols = same("columns", members["w1_b"], cols1, members["w2_b"], cols2)
    rank = members["w1_b"].shape[0]
    value, source = scale.of(rank)
    detail = "Tucker form" if "t1" in members else ""
    kernel = members["t1"].shape[2:] if "t1" in members else ()
    return Part("loha", (rows, cols), rank, value, source, detail, Formula(value, one, other, kernel=kernel))


def _half(members: Members, n: int) -> tuple[Matrix, int, int]:
    a, b = members.factor(f"w{n}_a", 2), members.factor(f"w{n}_b", 2)
    core = members.get(f"t{n}")
    if core is not None:
        return tucker(a, b, core)
    if "t1" in members or "t2" in members:
        raise Malformed(f"'{a.name}' has no t{n} beside it, and the other half has")
    return plain(a, b)


def plain(a: Member, b: Member) -> tuple[Matrix, int, int]:
    """a [rows, rank] @ b [rank, columns], with rows and columns."""
    rank = same("rank", a, a.shape[1], b, b.shape[0])
    rows, cols = a.shape[0], b.shape[1]
    return product(b.tensor, a.tensor, rows, cols, rank), rows, cols


def tucker(a: Member, b: Member, core: Member) -> tuple[Matrix, int, int]:
    """``einsum('ij...,jr,ip->pr...', core, b, a)`` with its rows and columns: a [rank, out], b [rank, in], core [rank,
    rank, *kernel]."""
    floats(core, 3, 4, 5)
    rank = same("rank", a, a.shape[0], core, core.shape[0])
    inner = same("rank", b, b.shape[0], core, core.shape[1])
    rows, inputs, kernel = a.shape[1], b.shape[1], math.prod(core.shape[2:])
    down = Core(core.tensor, b.tensor, rank, inner, inputs, kernel)
    return Matrix(View(down, inputs * kernel, 1), View(a.tensor, 1, rows), rank), rows, inputs * kernel
