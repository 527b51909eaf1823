"""LoHa: alpha / rank * (w1_a @ w1_b) * (w2_a @ w2_b), element by element."""

from __future__ import annotations

import math

from .members import Malformed, Member, Members, floats, same
from .part import Part
from .scaling import GroupScale


def loha(members: Members, scale: GroupScale) -> Part:
    """w?_a [out, rank], w?_b [rank, in * kernel]; rank is w1_b's. With t1 and t2 in Tucker form."""
    halves = [_half(members, n) for n in (1, 2)]
    first, second = members["w1_a"], members["w2_a"]
    rows = same("rows", first, halves[0][0], second, halves[1][0])
    cols = same("columns", members["w1_b"], halves[0][1], members["w2_b"], halves[1][1])
    rank = members["w1_b"].shape[0]
    return Part("loha", (rows, cols), rank, *scale.of(rank), "Tucker form" if "t1" in members else "")


def _half(members: Members, n: int) -> tuple[int, int]:
    a, b = members.factor(f"w{n}_a", 2), members.factor(f"w{n}_b", 2)
    core = members.get(f"t{n}")
    if core is not None:
        return tucker(a, b, core)
    if "t1" in members or "t2" in members:
        raise Malformed(f"'{a.name}' has no t{n} beside it, and the other half has")
    same("rank", a, a.shape[1], b, b.shape[0])
    return a.shape[0], b.shape[1]


def tucker(a: Member, b: Member, core: Member) -> tuple[int, int]:
    """(rows, columns) of ``einsum('ij...,jr,ip->pr...', core, b, a)``: a [rank, out], b [rank, in], core [rank, rank,
    *kernel]."""
    floats(core, 3, 4, 5)
    same("rank", a, a.shape[0], core, core.shape[0])
    same("rank", b, b.shape[0], core, core.shape[1])
    return a.shape[1], b.shape[1] * math.prod(core.shape[2:])
