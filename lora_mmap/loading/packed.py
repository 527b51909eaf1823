"""Tensors of 4-bit elements, which torch and numpy hold by the byte."""

from __future__ import annotations

from ..errors import TensorError


def packed_shape(shape: tuple[int, ...], where: str) -> tuple[int, ...]:
    """The shape of a tensor that holds two elements in each byte of its last dimension."""
    if not shape or shape[-1] % 2:
        raise TensorError(
            f"f4_x2 dtype requires that the last dim be divisible by 2 in torch: got {list(shape)}: {where}"
        )
    return (*shape[:-1], shape[-1] // 2)
