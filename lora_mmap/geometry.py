"""A weight as the kernels see it: a matrix of rows (output features) and columns (flattened input) at an address."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np
import numpy.typing as npt
import torch

from .errors import ModelError
from .model_index import IndexedWeight
from .tensor_source import dtype_name

_FUSABLE = {torch.float16: 2, torch.bfloat16: 2, torch.float32: 4, torch.float64: 8}

Key = tuple[int, int, int, int, int, str]


@dataclass(slots=True)
class Geometry:
    """Rows, columns and strides in elements; ``column_map[j]`` is the flattened input index of the j-th column in
    memory, where memory order differs (channels_last). Good for as long as the weight is neither moved nor reshaped."""

    name: str
    weight: torch.Tensor
    address: int
    rows: int
    cols: int
    row_stride: int
    col_stride: int
    itemsize: int
    dtype: str
    shape: torch.Size
    strides: tuple[int, ...]
    column_map: npt.NDArray[np.int32] | None = None
    key: Key = field(init=False)  # names the storage region: tied weights share it
    end: int = field(init=False)  # one past the last byte it may touch

    def __post_init__(self) -> None:
        self.key = (self.address, self.rows, self.cols, self.row_stride, self.col_stride, self.dtype)
        last = (self.rows - 1) * self.row_stride + (self.cols - 1) * self.col_stride
        self.end = self.address + (last + 1) * self.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of the elements themselves, without padding between rows."""
        return self.rows * self.cols * self.itemsize

    def is_current(self) -> bool:
        """False once the weight was moved, converted or viewed differently."""
        weight = self.weight
        return (
            weight.data_ptr() == self.address
            and weight.shape == self.shape
            and weight.stride() == self.strides
            and _FUSABLE.get(weight.dtype) == self.itemsize
            and dtype_name(weight.dtype) == self.dtype
        )


def refusal(entry: IndexedWeight) -> str | None:
    """Why this weight cannot be fused into, whatever the factors; None if it can."""
    if entry.refusal or entry.weight is None:
        return entry.refusal
    weight = entry.weight
    data = weight.data
    if type(data) is not torch.Tensor:
        return f"its weight is a {type(data).__name__}, expected a plain tensor"
    if data.is_meta:
        return "its weight is on the meta device: there is nothing to fuse into"
    if data.dtype not in _FUSABLE:
        return (
            f"its weight has dtype {data.dtype}; weights are fused into at float16, bfloat16, float32 and float64 only"
        )
    return None


def look_at(entry: IndexedWeight) -> Geometry | str:
    """The weight's geometry, or why it cannot be fused into. Remembered with the entry while it stays true.

    Raises ModelError for a device or storage that no kernel can write to.
    """
    known = entry.geometry
    if known is not None and known.is_current():
        return known
    entry.geometry = None
    reason = refusal(entry)
    if reason:
        return reason
    entry.geometry = geometry_of(entry)
    return entry.geometry


def geometry_of(entry: IndexedWeight) -> Geometry:
    """Describes a weight for which :func:`refusal` found nothing."""
    weight = entry.weight
    assert weight is not None
    if weight.device.type != "cpu":
        raise ModelError(
            f"[compose] weight '{entry.name}.weight' is on {weight.device}, expected cpu: this version fuses on the CPU"
        )
    shape, strides = weight.shape, weight.stride()
    dtype = dtype_name(weight.dtype)
    assert dtype is not None
    itemsize = _FUSABLE[weight.dtype]
    address = weight.data_ptr()
    if weight.is_contiguous() and not entry.transposed:
        cols = math.prod(shape[1:])
        return Geometry(entry.name, weight, address, shape[0], cols, cols, 1, itemsize, dtype, shape, strides)
    if len(shape) == 2:
        rows, cols = shape
        row_stride, col_stride = strides
        if entry.transposed:
            rows, cols, row_stride, col_stride = cols, rows, col_stride, row_stride
        column_map = None
    else:
        rows, cols = shape[0], math.prod(shape[1:])
        row_stride, col_stride = strides[0], 1
        column_map = _memory_order(entry, weight)
    result = Geometry(
        entry.name, weight, address, rows, cols, row_stride, col_stride, itemsize, dtype, shape, strides, column_map
    )
    _refuse_self_overlap(result)
    return result


def _memory_order(entry: IndexedWeight, weight: torch.Tensor) -> npt.NDArray[np.int32]:
    """The flattened input index of each element of one output channel, in memory order."""
    inner = [d for d in range(1, weight.dim()) if weight.shape[d] > 1]
    order = sorted(inner, key=weight.stride, reverse=True)
    expected = 1
    for dim in reversed(order):
        if weight.stride(dim) != expected:
            raise ModelError(
                f"[compose] weight '{entry.name}.weight' of shape {list(weight.shape)} has strides "
                f"{list(weight.stride())}, expected each output channel to be one dense block"
            )
        expected *= weight.shape[dim]
    flat = np.arange(expected, dtype=np.int32).reshape([weight.shape[d] for d in inner])
    return np.ascontiguousarray(flat.transpose([inner.index(d) for d in order]).ravel())


def _refuse_self_overlap(geometry: Geometry) -> None:
    axes = [(geometry.row_stride, geometry.rows), (geometry.col_stride, geometry.cols)]
    (small, count), (large, outer) = sorted(axes, key=lambda axis: axis[0])
    if (small == 0 and count > 1) or (outer > 1 and large <= small * (count - 1)):
        raise ModelError(
            f"[compose] weight '{geometry.name}.weight': rows {geometry.rows} with stride {geometry.row_stride}, "
            f"columns {geometry.cols} with stride {geometry.col_stride} share elements, expected one place per element"
        )


def refuse_overlaps(geometries: list[Geometry]) -> None:
    """Raises ModelError where two different weights share some of their bytes: the sum would depend on the order."""
    reach: Geometry | None = None
    for geometry in sorted(geometries, key=attrgetter("address")):
        if reach is not None and geometry.address < reach.end and not _interleaved(reach, geometry):
            raise ModelError(
                f"[compose] weights '{reach.name}.weight' and '{geometry.name}.weight' overlap in memory without being "
                "the same region, expected separate or fully tied weights"
            )
        if reach is None or geometry.end > reach.end:
            reach = geometry


def _interleaved(a: Geometry, b: Geometry) -> bool:
    """True for two column blocks of one wider matrix: their extents cross, their elements do not."""
    if a.row_stride != b.row_stride or a.col_stride != 1 or b.col_stride != 1 or a.itemsize != b.itemsize:
        return False
    offset = ((b.address - a.address) // a.itemsize) % a.row_stride
    return offset >= a.cols and offset + b.cols <= a.row_stride
