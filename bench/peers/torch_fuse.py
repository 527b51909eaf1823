"""Fusing with torch alone: the way everyone writes first, OneDiffX's arithmetic, and the best way torch has."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

Fuse = Callable[[Tensor, Tensor, Tensor, float], None]
_BLOCK_ROWS = (32, 64, 128, 256, 512)


def naive(weight: Tensor, up: Tensor, down: Tensor, scale: float) -> None:
    """``W += s * (B @ A)`` at the weight's dtype: delta is rounded to it, and the sum again."""
    weight += scale * (up.to(weight.dtype) @ down.to(weight.dtype))


def onediffx_arithmetic(weight: Tensor, up: Tensor, down: Tensor, scale: float) -> None:
    """OneDiffX's order of operations, written here from their description: factors cloned to fp32, an fp32 delta, an
    fp32 copy of the weight, one rounding, one copy back. 40 bytes of traffic per 16-bit weight element."""
    up32, down32 = up.clone().float(), down.clone().float()
    delta = scale * (up32 @ down32)
    weight.copy_((weight.float() + delta).to(weight.dtype))


def addmm(weight: Tensor, up: Tensor, down: Tensor, scale: float) -> None:
    """torch's own in-place product at the weight's dtype."""
    weight.addmm_(up.to(weight.dtype), down.to(weight.dtype), alpha=scale)


class Upcast:
    """The whole weight in fp32, one ``addmm_``, one rounding. The fp32 buffer is kept: ``W.float()`` as it is where the
    allocator has the memory ready."""

    def __init__(self) -> None:
        self._buffer = torch.empty(0)

    def __call__(self, weight: Tensor, up: Tensor, down: Tensor, scale: float) -> None:
        if self._buffer.shape != weight.shape:
            self._buffer = torch.empty(weight.shape)
        self._buffer.copy_(weight)
        self._buffer.addmm_(up.float(), down.float(), alpha=scale)
        weight.copy_(self._buffer)


class RowBlocks:
    """fp32 ``addmm_`` into a preallocated block of rows that stays in the cache: one read and one write of the weight,
    one rounding. The best torch does on a CPU; the block that is fastest here is found by trying."""

    def __init__(self) -> None:
        self.block_rows = 128
        self._buffer = torch.empty(0)

    def __call__(self, weight: Tensor, up: Tensor, down: Tensor, scale: float) -> None:
        if weight.dtype == torch.float32:
            weight.addmm_(up.float(), down.float(), alpha=scale)
            return
        up32, down32 = up.float(), down.float()
        rows, cols = weight.shape
        if self._buffer.numel() < self.block_rows * cols:
            self._buffer = torch.empty(self.block_rows * cols)
        for begin in range(0, rows, self.block_rows):
            end = min(begin + self.block_rows, rows)
            block = self._buffer[: (end - begin) * cols].view(end - begin, cols)
            block.copy_(weight[begin:end])
            block.addmm_(up32[begin:end], down32, alpha=scale)
            weight[begin:end].copy_(block)

    def tune(self, weight: Tensor, up: Tensor, down: Tensor) -> None:
        """Settles ``block_rows`` for weights like this one. The weight keeps its values (scale 0)."""
        seconds: dict[int, float] = {}
        for self.block_rows in _BLOCK_ROWS:
            self._buffer = torch.empty(self.block_rows * weight.shape[1])
            tries = []
            for _ in range(3):
                begin = time.perf_counter()
                self(weight, up, down, 0.0)
                tries.append(time.perf_counter() - begin)
            seconds[self.block_rows] = min(tries)
        self.block_rows = min(seconds, key=lambda rows: seconds[rows])
        self._buffer = torch.empty(self.block_rows * weight.shape[1])
