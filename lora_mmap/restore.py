"""Copies of weights as they were, and the way back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from . import _C
from .cuda import launches
from .geometry import Geometry
from .lowering.jobs import Place
from .native_types import Rect

TIERS = ("auto", "file", "journal", "backup", "none")


@dataclass(slots=True)
class Saved:
    """The bytes of one weight at one moment, in ``memory`` (shared by the weights saved together) from ``address``.

    ``memory`` is on the host: pinned, and used there by the device, where the weight is on a GPU.
    """

    geometry: Geometry
    memory: _C.Memory | _C.CudaPinnedBlock
    address: int

    @property
    def nbytes(self) -> int:
        return self.geometry.nbytes


def place_of_copy(saved: Saved) -> Place:
    """Where its values lie."""
    return Place(saved.address, saved.geometry.cols, 1)


def save(geometries: Sequence[Geometry], threads: int) -> list[Saved]:
    """Copies the current bytes of weights of one device into one new block of memory. Raises MemoryError, or
    CudaError where memory for a GPU's weights cannot be pinned.
    """
    if not geometries:
        return []
    total = sum(_aligned(geometry.nbytes) for geometry in geometries)
    memory = _allocate(total, geometries[0].device)
    address = memory.address
    saved = []
    for geometry in geometries:
        saved.append(Saved(geometry, memory, address))
        address += _aligned(geometry.nbytes)
    _copy(geometries[0].device, [_rectangle(item, to_weight=False) for item in saved], threads)
    return saved


def put_back(saved: Sequence[Saved], threads: int) -> None:
    """Writes saved bytes into the weights they came from. On a GPU: in order on the current stream."""
    for device in {item.geometry.device for item in saved}:
        here = [item for item in saved if item.geometry.device == device]
        _copy(device, [_rectangle(item, to_weight=True) for item in here], threads)
    mark_written(item.geometry for item in saved)


def mark_written(weights: Iterable[Geometry]) -> None:
    """Tells autograd that these weights changed behind its back."""
    for geometry in weights:
        if not geometry.weight.is_inference():
            torch.autograd.graph.increment_version(geometry.weight)


def _rectangle(item: Saved, to_weight: bool) -> Rect:
    geometry = item.geometry
    weight = (geometry.address, geometry.row_stride, geometry.col_stride)
    copy = (item.address, geometry.cols, 1)
    (dst, dst_row, dst_col), (src, src_row, src_col) = (weight, copy) if to_weight else (copy, weight)
    return dst, src, geometry.rows, geometry.cols, dst_row, dst_col, src_row, src_col, geometry.itemsize


def _allocate(nbytes: int, device: torch.device) -> _C.Memory | _C.CudaPinnedBlock:
    if device.type == "cpu":
        return _C.Memory(nbytes, hugepages=True)
    return _C.CudaPinnedBlock(device.index, nbytes)


def _copy(device: torch.device, rects: list[Rect], threads: int) -> None:
    if device.type == "cpu":
        _C.copy(rects, threads)
    else:
        launches.copy(device, rects)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // 64) * 64
