"""LoKr: scale * kron(w1, w2), each of them whole or in two factors."""

from __future__ import annotations

from .hadamard import tucker
from .members import Malformed, Members, floats, same
from .part import Part
from .scaling import GroupScale, finite

_DIMS = (2, 3, 4, 5)


def lokr(members: Members, scale: GroupScale) -> Part:
    """w1 [o1, i1], w2 [o2, i2, *kernel]: the weight is [o1 * o2, i1 * i2, *kernel]."""
    (o1, i1), (o2, i2) = _block(members, "w1", 2), _block(members, "w2", *_DIMS)
    rank = next((members[role].shape[0] for role in ("w2_b", "w1_b") if role in members), None)
    detail = "Tucker form" if "t2" in members else "whole factors" if rank is None else ""
    return Part("lokr", (o1 * o2, i1 * i2), rank, *_scale(rank, scale), detail)


def _scale(rank: int | None, scale: GroupScale) -> tuple[float, str]:
    """alpha / rank. Two whole factors have no rank: LyCORIS takes scale 1 whatever alpha says, PEFT its own rank."""
    if rank is not None:
        return scale.of(rank)
    config = scale.config
    own = scale.group.path
    if scale.value is None and config is not None and (rank := config.rank(own)):
        return finite(*(config.scale(own, rank) or (1.0, config.source)))
    return 1.0, "1 for whole factors"


def _block(members: Members, name: str, *dims: int) -> tuple[int, int]:
    whole, a = members.get(name), members.get(f"{name}_a")
    if whole is not None:
        if a is not None:
            raise Malformed(f"{whole} and {a} are both its {name}, expected one of them whole or in factors")
        return floats(whole, *dims).flat
    if a is None and f"{name}_b" not in members:
        raise Malformed(f"'{members.of('lokr')[0].name}' has no {name} beside it, whole or in factors")
    a, b = members.factor(f"{name}_a", 2), members.factor(f"{name}_b", 2)
    core = members.get(f"t{name[1]}")
    if core is not None:
        return tucker(a, b, core)
    same("rank", a, a.shape[1], b, b.shape[0])
    return a.shape[0], b.shape[1]
