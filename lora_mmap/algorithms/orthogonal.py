"""OFT and BOFT: rotations of a weight's rows (LyCORIS, kohya) or of its inputs (PEFT). They take the weight itself."""

from __future__ import annotations

import math

from .members import Malformed, Member, Members, floats, same
from .part import Part
from .scaling import GroupScale


def oft(members: Members, scale: GroupScale) -> Part:
    """oft_blocks [n, b, b] rotate n * b = out rows; with a fourth dimension in front they are BOFT's m stages. alpha
    bounds the norm of the rotation and is no scale."""
    role = "oft_diag" if "oft_diag" in members and "oft_blocks" not in members else "oft_blocks"
    blocks = members.factor(role, 3, 4)
    same("sides", blocks, blocks.shape[-1], blocks, blocks.shape[-2])
    rows = blocks.shape[-3] * blocks.shape[-1]
    rescale = members.get("rescale")
    if rescale is not None and (rescale.size != rows or floats(rescale, 1, 2, 3, 4, 5).shape[0] != rows):
        raise Malformed(f"'{rescale.name}' has shape {list(rescale.shape)}, expected [{rows}, 1] beside {blocks}")
    said = [f"constraint {scale.value:g}"] if scale.value else []
    said += ["rows rescaled"] if rescale is not None else []
    algorithm = "oft" if len(blocks.shape) == 3 else "boft"
    return Part(algorithm, (rows, None), detail=", ".join(said))


def oft_peft(members: Members, scale: GroupScale) -> Part:
    """oft_R [n, b * (b - 1) / 2]: the upper triangles of n skew-symmetric [b, b], which rotate n * b = in columns."""
    packed = members.factor("oft_r", 2)
    blocks, elements = packed.shape
    side = (1 + math.isqrt(1 + 8 * elements)) // 2
    if side * (side - 1) // 2 != elements or not elements or not blocks:
        raise Malformed(f"{packed}: expected [blocks, b * (b - 1) / 2] for some side b of a block")
    if blocks == 1:
        return Part("oft_peft", (None, None), detail=f"one block of {side}, or one that all inputs share")
    return Part("oft_peft", (None, blocks * side), detail=f"{blocks} blocks of {side}")


def boft_peft(members: Members, scale: GroupScale) -> Part:
    """boft_R [m, n, b, b] rotate n * b = in columns in m stages; boft_s [out, 1] (convolutions [1, out]) scale rows."""
    blocks, rows = members.factor("boft_r", 4), members.factor("boft_s", 2)
    same("sides", blocks, blocks.shape[-1], blocks, blocks.shape[-2])
    return Part("boft_peft", (_vector(rows), blocks.shape[1] * blocks.shape[3]), detail=f"{blocks.shape[0]} stages")


def _vector(member: Member) -> int:
    if member.size not in member.shape:
        raise Malformed(f"'{member.name}' has shape {list(member.shape)}, expected [rows, 1] or [1, rows]")
    return member.size
