"""A weight as the kernels see it: a matrix of rows (output features) and columns (flattened input) at an address."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from operator import attrgetter

import numpy as np
import numpy.typing as npt
import torch

FUSABLE_DEVICES = ("cpu", "cuda")


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
    device: torch.device
    column_map: npt.NDArray[np.int32] | None = None
    parameter: str = "weight"  # empty where `name` is the parameter's own
    transposed: bool = False  # the rows are the second dimension of the parameter, as in transformers' Conv1D
    end: int = field(init=False)  # one past the last byte it may touch

    def __post_init__(self) -> None:
        last = (self.rows - 1) * self.row_stride + (self.cols - 1) * self.col_stride
        self.end = self.address + (last + 1) * self.itemsize

    @property
    def path(self) -> str:
        """The parameter's name in the model."""
        return f"{self.name}.{self.parameter}" if self.parameter else self.name

    @property
    def kernel(self) -> int:
        """Columns of each input channel."""
        return math.prod(self.shape[2:])

    @property
    def within_reach(self) -> bool:
        """True on devices that there are kernels for. Their address spaces are one."""
        return self.device.type in FUSABLE_DEVICES

    @property
    def nbytes(self) -> int:
        """Bytes of the elements themselves, without padding between rows."""
        return self.rows * self.cols * self.itemsize

    def same_form(self, other: Geometry) -> bool:
        """True when both describe the same elements in the same places."""
        mine = (self.address, self.rows, self.cols, self.row_stride, self.col_stride, self.dtype)
        return mine == (other.address, other.rows, other.cols, other.row_stride, other.col_stride, other.dtype)

    def same_elements(self, other: Geometry) -> bool:
        """True when row and column mean the same element of the parameter in both, wherever they lie."""
        mine = (self.shape, self.rows, self.cols, self.dtype, self.transposed)
        theirs = (other.shape, other.rows, other.cols, other.dtype, other.transposed)
        return mine == theirs and _same_order(self.column_map, other.column_map)

    def at(self, place: Geometry) -> Geometry:
        """This one, lying where another one of the same elements lies."""
        return replace(
            self,
            address=place.address,
            row_stride=place.row_stride,
            col_stride=place.col_stride,
            column_map=place.column_map,
        )

    def crosses(self, other: Geometry) -> bool:
        """True when some byte may belong to both."""
        return self.address < other.end and other.address < self.end and not _interleaved(self, other)


class Occupied:
    """Weights by the memory they lie in."""

    def __init__(self, geometries: Iterable[Geometry]) -> None:
        self._sorted = sorted(geometries, key=attrgetter("address"))
        self._addresses = [geometry.address for geometry in self._sorted]
        self._longest = max((geometry.end - geometry.address for geometry in self._sorted), default=0)

    def crossing(self, other: Geometry) -> Iterator[Geometry]:
        """Those that may share a byte with ``other``, itself included if it is among them."""
        position = bisect_left(self._addresses, other.end)
        while position and self._addresses[position - 1] > other.address - self._longest:
            position -= 1
            if self._sorted[position].crosses(other):
                yield self._sorted[position]


def overlap(geometries: Iterable[Geometry]) -> tuple[Geometry, Geometry] | None:
    """Two weights that share some of their bytes without being the same region, if there are such."""
    reach: Geometry | None = None
    for geometry in sorted(geometries, key=attrgetter("address")):
        if reach is not None and reach.crosses(geometry) and not reach.same_form(geometry):
            return reach, geometry
        if reach is None or geometry.end > reach.end:
            reach = geometry
    return None


def _interleaved(a: Geometry, b: Geometry) -> bool:
    """True for two column blocks of one wider matrix: their extents cross, their elements do not."""
    if a.row_stride != b.row_stride or a.col_stride != 1 or b.col_stride != 1 or a.itemsize != b.itemsize:
        return False
    offset = ((b.address - a.address) // a.itemsize) % a.row_stride
    return offset >= a.cols and offset + b.cols <= a.row_stride


def _same_order(one: npt.NDArray[np.int32] | None, other: npt.NDArray[np.int32] | None) -> bool:
    """Of columns; None is the plain one."""
    if one is None or other is None:
        given = one if other is None else other
        return given is None or np.array_equal(given, np.arange(len(given)))
    return np.array_equal(one, other)
