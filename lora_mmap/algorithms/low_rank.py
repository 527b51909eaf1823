"""LoRA and LoCon, and what is trained beside their two factors. down is [rank, in, *kernel], up [out, rank, 1, ...]."""

from __future__ import annotations

import math

from .formula import Core, Formula, Matrix, View, product
from .members import Malformed, Member, Members, floats, has_shape, same
from .part import Part
from .scaling import GroupScale

_DIMS = (2, 3, 4, 5)


def lora(members: Members, scale: GroupScale) -> Part:
    """alpha / rank * up @ down, convolutions flattened."""
    down, up = _factors(members)
    rank = same("rank", down, down.shape[0], up, math.prod(up.shape[1:]))
    rows, cols = up.shape[0], down.flat[1]
    mid = members.get("mid")
    if mid is not None:
        return _tucker(down, floats(mid, 3, 4, 5), up, scale)
    value, source = scale.of(rank)
    formula = Formula(value, product(down.tensor, up.tensor, rows, cols, rank), kernel=down.shape[2:])
    return Part("lora", (rows, cols), rank, value, source, formula=formula)


def _tucker(down: Member, mid: Member, up: Member, scale: GroupScale) -> Part:
    """down [rank, in, 1, 1], mid [rank, rank, kh, kw]: the kernel is mid's."""
    rank = same("rank", down, down.shape[0], mid, mid.shape[1])
    outer = same("rank", up, math.prod(up.shape[1:]), mid, mid.shape[0])
    if math.prod(down.shape[2:]) != 1:
        raise Malformed(f"{down} has a kernel of its own, expected none beside {mid}")
    kernel = math.prod(mid.shape[2:])
    form = (up.shape[0], down.shape[1] * kernel)
    core = Core(mid.tensor, down.tensor, outer, rank, down.shape[1], kernel)
    value, source = scale.of(rank)
    made = Matrix(View(core, form[1], 1), View(up.tensor, outer, 1), outer)
    formula = Formula(value, made, kernel=mid.shape[2:])
    return Part("tucker", form, rank, value, source, formula=formula)


def embedding(members: Members, scale: GroupScale) -> Part:
    """lora_embedding_A [rank, entries], lora_embedding_B [dim, rank]: (B @ A) transposed is added to [entries, dim]."""
    down, up = members.factor("embedding_down", 2), members.factor("embedding_up", 2)
    rank = same("rank", down, down.shape[0], up, up.shape[1])
    entries, dim = down.shape[1], up.shape[0]
    value, source = scale.of(rank)
    # Transposed, the factors change places.
    formula = Formula(value, Matrix(View(up.tensor, 1, rank), View(down.tensor, 1, entries), rank))
    return Part("embedding", (entries, dim), rank, value, source, formula=formula)


def adalora(members: Members, scale: GroupScale) -> Part:
    """B @ (A * E), E [rank, 1]; PEFT divides by a rank that training changed and the file does not hold."""
    part = lora(members, scale)
    has_shape(members.factor("lora_E", 1, 2), (part.rank or 0, 1), members["down"])
    return Part("adalora", part.form, part.rank, detail="singular values in lora_E")


def kasa(members: Members, scale: GroupScale) -> Part:
    """B @ diag(lora_diag) @ A, on a base weight without its smallest singular values."""
    part = lora(members, scale)
    has_shape(members.factor("lora_diag", 1), (part.rank or 0,), members["down"])
    return Part("kasa", part.form, part.rank, part.scale, part.scale_source, "truncates the base weight")


def tlora(members: Members, scale: GroupScale) -> Part:
    """(P * lambda) @ Q less the same with the values at the start, which the file does not hold."""
    down, up = members.factor("q_layer", *_DIMS), members.factor("p_layer", *_DIMS)
    rank = same("rank", down, down.shape[0], up, up.shape[1])
    has_shape(members.factor("lambda_layer", 2), (1, rank), down)
    detail = "relative to start values that are not in the file"
    return Part("tlora", (up.shape[0], down.flat[1]), rank, *scale.of(rank), detail)


def packed(members: Members, scale: GroupScale) -> Part:
    """Nunchaku's own files: lora_down [in, rank] and lora_up [out, rank], rows and columns permuted for its kernels."""
    down, up = members.factor("packed_down", 2), members.factor("packed_up", 2)
    rank = up.shape[1]
    if rank not in down.shape:
        raise Malformed(f"{down} has no side of rank {rank} as {up} has, expected [in, {rank}]")
    cols = down.shape[0] if down.shape[1] == rank else down.shape[1]
    return Part("nunchaku", (up.shape[0], cols), rank, *scale.of(rank))


def _factors(members: Members) -> tuple[Member, Member]:
    down, up = members.get("down"), members.get("up")
    if down is None or up is None:
        present = up if down is None else down
        if present is None:
            raise members.without_factors()
        missing = "down" if down is None else "up"
        raise Malformed(f"'{present.name}' has no {missing} factor beside it")
    return floats(down, *_DIMS), floats(up, *_DIMS)
