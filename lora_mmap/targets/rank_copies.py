"""Ranks copied from factor to factor: on the CPU all together in the native core, elsewhere one by one by torch."""

from __future__ import annotations

import torch

from .. import _C
from ..native_types import Rect
from .branch import Branch, Extent, Factors


class RankCopies:
    """Copies that are carried out by :meth:`run`. Holds on to the tensors until then."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._rects: list[Rect] = []
        self._kept: list[torch.Tensor] = []

    def add(self, to: torch.Tensor, to_extent: Extent, of: torch.Tensor, of_extent: Extent) -> None:
        """Of equal extents, apart from where they begin and their stride. Factors are dense."""
        if not (to_extent.rows and to_extent.cols):
            return
        if to.device.type != "cpu" or of.device.type != "cpu":
            to_extent.of(to).copy_(of_extent.of(of))
            return
        size = to.element_size()
        begins = (to.data_ptr() + to_extent.begin * size, of.data_ptr() + of_extent.begin * size)
        strides = (to_extent.row_stride, 1, of_extent.row_stride, 1)
        self._rects.append((*begins, to_extent.rows, to_extent.cols, *strides, size))
        self._kept += (to, of)

    def run(self) -> None:
        if self._rects:
            _C.copy(self._rects, self._threads)
        self._rects, self._kept = [], []


def resized(branch: Branch, factors: Factors, base: int, ranks: int, copies: RankCopies) -> Factors:
    """New factors of so many ranks, of which the first ``base`` are to be copied; the others hold anything."""
    new = []
    with torch.inference_mode(False):  # what is made inside could not be written to outside
        for old in factors:
            made = branch.empty(old, ranks)
            copies.add(made, branch.extent(made, 0, base), old, branch.extent(old, 0, base))
            new.append(made)
    return Factors(*new)


def saved(branch: Branch, factors: Factors, base: int, copies: RankCopies) -> Factors:
    """New memory for the ranks after the first ``base``, which are to be copied there, where the factors are."""
    found = []
    for factor in factors:
        extent = branch.extent(factor, base, branch.ranks_in(factor))
        copy = torch.empty(extent.rows, extent.cols, dtype=factor.dtype, device=factor.device)
        copies.add(copy, whole(copy), factor, extent)
        found.append(copy)
    return Factors(*found)


def whole(copy: torch.Tensor) -> Extent:
    """All of a dense matrix."""
    rows, cols = copy.shape
    return Extent(0, rows, cols, cols)
