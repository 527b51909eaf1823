"""Nunchaku's SVDQuant linears: factors are appended to the 16-bit branch that the kernels compute beside 4-bit weights.

``proj_down`` (stored [in, rank]) and ``proj_up`` (stored [out, rank]) are packed in tiles of 16 x 16 elements, in rows
of tiles along the ranks: more ranks are more tiles at the end of every row, and the module's own are never unpacked.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from .branch import Branch, Extent, Factors, Layout
from .offloading import hold, present, replace

_TILE = 16
_KEYS = ("proj_down", "proj_up")
_DTYPES = (torch.float16, torch.bfloat16)
# As many as the kernels take.
RANK_LIMIT = 1024
# Above this the branch costs more than what was quantised saves.
RANK_ADVISED = 256


def is_one(module: nn.Module) -> bool:
    """True for a module with a packed low-rank branch beside a quantised weight."""
    return all(isinstance(getattr(module, key, None), torch.Tensor) for key in _KEYS) and hasattr(module, "qweight")


def obstacle(module: nn.Module, rows: int, cols: int) -> str:
    """Why nothing can be appended to its branch, or an empty text."""
    down, up = (present(module, key) for key in _KEYS)
    if rows % _TILE or cols % _TILE:
        return f"it maps {cols} to {rows} features, expected multiples of {_TILE}: its low-rank branch is packed"
    if down.dtype != up.dtype or down.dtype not in _DTYPES:
        return f"its low-rank branch has dtypes {down.dtype} and {up.dtype}, expected float16 or bfloat16"
    if down.dim() != 2 or up.dim() != 2 or down.shape[1] != up.shape[1] or down.shape[1] % _TILE:
        return (
            f"its proj_down is {list(down.shape)} and proj_up {list(up.shape)}, expected [{cols}, rank] and "
            f"[{rows}, rank] with a rank divisible by {_TILE}"
        )
    if not (down.is_contiguous() and up.is_contiguous()):
        return "its proj_down and proj_up are not contiguous, expected packed tiles one after the other"
    if (down.shape[0], up.shape[0]) != (cols, rows):
        return f"its proj_down is {list(down.shape)} and proj_up {list(up.shape)}, expected {cols} and {rows} rows"
    return ""


class PackedBranch(Branch):
    """Ranks in tiles of 16; ``module.rank`` follows. Parameters stay the objects they are."""

    layouts: ClassVar[tuple[Layout, Layout]] = ("down", "up")
    step = _TILE
    limit = RANK_LIMIT

    @property
    def dtype(self) -> torch.dtype:
        return present(self.module, _KEYS[0]).dtype

    @property
    def device(self) -> torch.device:
        return present(self.module, _KEYS[0]).device

    @property
    def ranks(self) -> int:
        return self.ranks_in(present(self.module, _KEYS[0]))

    def factors(self) -> Factors:
        return Factors(present(self.module, _KEYS[0]).data, present(self.module, _KEYS[1]).data)

    def writable_factors(self) -> Factors:
        for key in _KEYS:
            hold(self.module, key)
        return self.factors()

    def put(self, factors: Factors) -> None:
        for key, tensor in zip(_KEYS, factors, strict=True):
            replace(self.module, key, tensor)
        if hasattr(self.module, "rank"):
            setattr(self.module, "rank", factors.down.shape[1])  # noqa: B010 - mypy takes every attribute for a tensor

    def empty(self, like: torch.Tensor, ranks: int) -> torch.Tensor:
        return torch.empty(like.shape[0], ranks, dtype=like.dtype, device=like.device)

    @staticmethod
    def extent(factor: torch.Tensor, begin: int, end: int) -> Extent:
        features, ranks = factor.shape
        return Extent(_TILE * begin, features // _TILE, _TILE * (end - begin), _TILE * ranks)

    @staticmethod
    def ranks_in(factor: torch.Tensor) -> int:
        return factor.shape[1]
