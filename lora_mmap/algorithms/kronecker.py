"""LoKr: scale * kron(w1, w2), each of them whole or in two factors."""

from __future__ import annotations

from .formula import Fold, Formula, Matrix, whole
from .hadamard import plain, tucker
from .members import Malformed, Members, floats
from .part import Part
from .scaling import GroupScale, finite

_DIMS = (2, 3, 4, 5)


def lokr(members: Members, scale: GroupScale) -> Part:
    """w1 [o1, i1], w2 [o2, i2, *kernel]: the weight is [o1 * o2, i1 * i2, *kernel]."""
    (w1, o1, i1), (w2, o2, i2) = _block(members, "w1", 2), _block(members, "w2", *_DIMS)
    w1 = w1._replace(row_fold=Fold(o2, o1), col_fold=Fold(i2, i1))
    w2 = w2._replace(row_fold=Fold(1, o2), col_fold=Fold(1, i2))
    rank = next((members[role].shape[0] for role in ("w2_b", "w1_b") if role in members), None)
    detail = "Tucker form" if "t2" in members else "whole factors" if rank is None else ""
    value, source = _scale(rank, scale)
    kernel = next((members[role].shape[2:] for role in ("t2", "w2") if role in members), ())
    return Part("lokr", (o1 * o2, i1 * i2), rank, value, source, detail, Formula(value, w1, w2, kernel=kernel))


def _scale(rank: int | None, scale: GroupScale) -> tuple[float, str]:
    """alpha / rank. Two whole factors have no rank: LyCORIS takes scale 1 whatever alpha says, PEFT its own rank."""
    if rank is not None:
        return scale.of(rank)
    config = scale.config
    own = scale.group.path
    if scale.value is None and config is not None and (rank := config.rank(own)):
        return finite(*(config.scale(own, rank) or (1.0, config.source)))
    return 1.0, "1 for whole factors"


def _block(members: Members, name: str, *dims: int) -> tuple[Matrix, int, int]:
    """One of the two, with its rows and columns (the kernel's elements included)."""
    given, a = members.get(name), members.get(f"{name}_a")
    if given is not None:
        if a is not None:
            raise Malformed(f"{given} and {a} are both its {name}, expected one of them whole or in factors")
        rows, cols = floats(given, *dims).flat
        return whole(given.tensor, cols), rows, cols
    if a is None and f"{name}_b" not in members:
        raise Malformed(f"'{members.of('lokr')[0].name}' has no {name} beside it, whole or in factors")
    a, b = members.factor(f"{name}_a", 2), members.factor(f"{name}_b", 2)
    core = members.get(f"t{name[1]}")
    if core is not None:
        return tucker(a, b, core)
    return plain(a, b)
