"""Arrays of an open file for numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import _C
from ..errors import TensorError
from .numpy_dtypes import numpy_dtypes
from .opened_file import OpenedFile
from .packed import packed_shape
from .slicing import leading_run, select

Array = np.ndarray[Any, Any]

_NUMPY_HUGE_NBYTES = 4 << 20


class NumpyReader:
    """Writable arrays, isolated from each other and from the file. Safe to share between threads."""

    def __init__(self, opened: OpenedFile) -> None:
        self.opened = opened

    def tensor(self, index: int) -> Array:
        made = self._empty(index)
        self.opened.read([(self.opened.offsets[index], made.nbytes, made.ctypes.data)])
        return made

    def tensors(self) -> dict[str, Array]:
        opened = self.opened
        if opened.backend == "mmap":
            buffer = memoryview(opened.file.map())  # of its own, so that two calls are isolated
            made = {name: self._mapped(buffer, index) for index, name in enumerate(opened.names)}
            opened.file.check_unchanged(opened.header)
            return made
        made = {name: self._empty(index) for index, name in enumerate(opened.names)}
        opened.read(
            [
                (offset, array.nbytes, array.ctypes.data)
                for offset, array in zip(opened.offsets, made.values(), strict=True)
            ]
        )
        return made

    def sliced(self, index: int, item: Any) -> Array:
        """What ``tensor(index)[item]`` is, reading no more than the rows it lies in: see :func:`.slicing.select`."""
        if self.opened.dtypes[index] == "F4":
            return np.ascontiguousarray(self.tensor(index)[item])
        begin, run, picks = leading_run(select(item, self.opened.shapes[index]), self.opened.shapes[index])
        made = _fresh(run, self._kind(index)[1])
        self.opened.read([(self.opened.offsets[index] + begin * made.itemsize, made.nbytes, made.ctypes.data)])
        picked = made[picks]
        return made if picked.shape == made.shape else np.array(picked, order="C")

    def _mapped(self, buffer: memoryview, index: int) -> Array:
        """A view where the data is aligned, as C code expects of an array and safetensors' arrays always are."""
        shape, dtype = self._kind(index)
        offset = self.opened.offsets[index]
        if 0 in shape or offset % dtype.itemsize:
            return self.tensor(index)
        return np.ndarray(shape, dtype, buffer, offset)

    def _empty(self, index: int) -> Array:
        return _fresh(*self._kind(index))

    def _kind(self, index: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
        opened = self.opened
        return numpy_kind(opened.dtypes[index], opened.shapes[index], f"{opened.path}: tensor `{opened.names[index]}`")


def _fresh(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """np.empty, except that it asks for huge pages here, whose first touch may cost a virtual machine dearly."""
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < _NUMPY_HUGE_NBYTES:
        return np.empty(shape, dtype)
    return np.ndarray(shape, dtype, memoryview(_C.Memory(nbytes)))


def numpy_kind(dtype: str, shape: tuple[int, ...], where: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of the array for a tensor."""
    known = numpy_dtypes().get(dtype)
    if known is None:
        raise TensorError(f"Dtype not understood: {dtype}: {where}")
    return (packed_shape(shape, where) if dtype == "F4" else shape), known
