"""GLoRA as LyCORIS writes it: alpha / rank * (W @ a1 @ a2 + b1 @ b2). It takes the weight itself."""

from __future__ import annotations

import math

from .members import Malformed, Member, Members, floats, same
from .part import Part
from .scaling import GroupScale

_DIMS = (2, 3, 4, 5)


def glora(members: Members, scale: GroupScale) -> Part:
    """a1 [in, rank], a2 [rank, in], b1 [out, rank], b2 [rank, in, *kernel]; old LyCORIS had 1 and 2 swapped. Square
    weights fit both orders, the wrong one with their width as the rank."""
    a1, a2, b1, b2 = (members.factor(role, *_DIMS) for role in ("a1", "a2", "b1", "b2"))
    new, old = _rank(a1, a2, b1, b2), _rank(a2, a1, b2, b1)
    if not new and not old:
        raise Malformed(f"{a1} @ {a2} and {b1} @ {b2} have no rank in common, expected [out, rank] @ [rank, in]")
    if new and (not old or new <= old):
        return _read(a1, a2, b1, b2, members.get("bm"), scale, "")
    return _read(a2, a1, b2, b1, members.get("bm"), scale, "factors in the order of old LyCORIS")


def _rank(a_up: Member, a_down: Member, up: Member, down: Member) -> int:
    """The rank that all four agree on, or 0."""
    ranks = {a_up.flat[1], a_down.shape[0], up.flat[1], down.shape[0]}
    return ranks.pop() if len(ranks) == 1 else 0


def _read(
    a_up: Member, a_down: Member, up: Member, down: Member, mid: Member | None, scale: GroupScale, detail: str
) -> Part:
    inputs = same("inputs", a_up, a_up.shape[0], a_down, a_down.flat[1])
    same("inputs", a_down, inputs, down, down.shape[1])
    rank, cols = down.shape[0], down.flat[1]
    if mid is not None:
        same("rank", down, rank, floats(mid, 3, 4, 5), mid.shape[1])
        cols *= math.prod(mid.shape[2:])
    return Part("glora", (up.shape[0], cols), rank, *_scale(rank, scale), detail)


def _scale(rank: int, scale: GroupScale) -> tuple[float, str]:
    """LyCORIS' rsLoRA folds 1 / sqrt(rank) into the saved alpha of all its algorithms but this one."""
    value, source = scale.of(rank)
    if scale.value is not None and scale.scaling.adapter.metadata.rslora_in_network_args:
        return value * math.sqrt(rank), source + " (rsLoRA, says ss_network_args)"
    return value, source
