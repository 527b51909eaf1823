"""Tensors of an open file for torch: zero-copy views of the mapping, or bytes read into memory of their own."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import TensorError
from ..sharing import lazy
from .destinations import HostMemory, memory_of
from .opened_file import OpenedFile
from .packed import packed_shape
from .slicing import leading_run, select
from .torch_dtypes import TORCH_DTYPES, tensor_maker

_MAX_DIM = 2**63 - 1
_VIEW_INDICES = (int, slice, type(Ellipsis), type(None))


class TorchReader:
    """CPU tensors have a storage of their own, are writable and never written back. Safe to share between threads."""

    def __init__(self, opened: OpenedFile, device: torch.device | str | int | None) -> None:
        self.opened = opened
        self._device = device
        # Somebody who wants the bytes elsewhere gets them by reading: a mapping would be touched here, and a file
        # truncated meanwhile would kill the process.
        self._mapped = opened.backend == "mmap" and device is None
        self._maker = tensor_maker()

    @lazy
    def _memory(self) -> HostMemory:
        return memory_of(self._device)

    def tensor(self, index: int) -> torch.Tensor:
        return self._view(index) if self._mapped else self._delivered(self._read_whole(index))

    def tensors(self) -> dict[str, torch.Tensor]:
        opened = self.opened
        if self._mapped:
            made = self._maker.tensors(opened.mapping, opened.header)
            opened.file.check_unchanged(opened.header)
            return made
        if not self._memory.all_at_once:
            return {name: self.tensor(index) for index, name in enumerate(opened.names)}
        made = {name: self._empty(index) for index, name in enumerate(opened.names)}
        self._memory.fill(opened, list(zip(opened.offsets, opened.nbytes, made.values(), strict=True)))
        return made

    def sliced(self, index: int, item: Any) -> torch.Tensor:
        """What ``tensor(index)[item]`` is, reading no more than the rows it lies in.

        The mapping takes every index that torch takes, and so does ``backend="auto"``. ``backend="pread"`` takes what
        safetensors takes there: see :func:`.slicing.select`.
        """
        packed = self.opened.dtypes[index] == "F4"
        if not self.opened.lenient and self.opened.backend == "pread" and not packed:
            return self._delivered(self._selected(index, select(item, self.opened.shapes[index])))
        if self._mapped and _makes_view(item):
            return self._view(index)[item]
        rows = None if packed else self._rows(index, item)
        return self._delivered(self._read_whole(index)[item] if rows is None else rows)

    def _view(self, index: int) -> torch.Tensor:
        opened = self.opened
        opened.file.check_unchanged(opened.header)
        return self._maker.tensor(opened.mapping, opened.header, index)

    def _read_whole(self, index: int) -> torch.Tensor:
        made = self._empty(index)
        self._memory.fill(self.opened, [(self.opened.offsets[index], self.opened.nbytes[index], made)])
        return made

    def _rows(self, index: int, item: Any) -> torch.Tensor | None:
        """Reads only the rows that ``item`` begins with; None where it does not begin with a row or a range of them."""
        first, *rest = item if isinstance(item, tuple) and item else (item,)
        shape = self.opened.shapes[index]
        if not shape or type(first) not in (int, slice):
            return None
        torch.zeros((), device="cpu").expand(shape)[item]  # raises what torch raises
        if isinstance(first, int):
            return self._selected(index, [first % shape[0], *map(_all, shape[1:])])[tuple(rest)]
        begin, end, step = first.indices(shape[0])
        selection: list[int | slice] = [slice(begin, max(begin, end), step), *map(_all, shape[1:])]
        return self._selected(index, selection)[(slice(None), *rest)]

    def _selected(self, index: int, selection: list[int | slice]) -> torch.Tensor:
        begin, run, picks = leading_run(selection, self.opened.shapes[index])
        made = self._memory.empty(tuple(run), self._kind(index)[1])
        offset = self.opened.offsets[index] + begin * made.itemsize
        self._memory.fill(self.opened, [(offset, made.nbytes, made)])
        picked = made[picks]
        return picked if picked.nbytes == made.nbytes else picked.clone(memory_format=torch.contiguous_format)

    def _empty(self, index: int) -> torch.Tensor:
        return self._memory.empty(*self._kind(index))

    def _kind(self, index: int) -> tuple[tuple[int, ...], torch.dtype]:
        opened = self.opened
        return torch_kind(opened.dtypes[index], opened.shapes[index], f"{opened.path}: tensor `{opened.names[index]}`")

    def _delivered(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._memory.delivered(tensor, self.opened.path)


def torch_kind(dtype: str, shape: tuple[int, ...], where: str) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and dtype of the torch tensor for a tensor of a file. Raises TensorError where torch has none."""
    known = TORCH_DTYPES.get(dtype)
    if known is None:
        raise TensorError(f"Dtype not understood: {dtype}: {where}")
    if dtype == "F4":
        shape = packed_shape(shape, where)
    largest = max(shape, default=0)
    if largest > _MAX_DIM:
        raise TensorError(f"dimension {largest} is more than a tensor can have (2^63 - 1): {where}")
    return shape, known


def _makes_view(item: Any) -> bool:
    return all(type(part) in _VIEW_INDICES for part in (item if isinstance(item, tuple) else (item,)))


def _all(size: int) -> slice:
    return slice(0, size, 1)
