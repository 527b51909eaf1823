"""Where a file's tensors are read to: memory of the host, of a CUDA device, or of the host on the way elsewhere."""

from __future__ import annotations

import torch

from ..cuda import from_torch
from ..cuda.uploads import Reading, upload_tensors
from .opened_file import OpenedFile


class HostMemory:
    """CPU tensors."""

    all_at_once = True  # a whole file at a time, not tensor by tensor

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Memory to read into. Without elements any shape will do, even one whose strides would overflow."""
        if 0 in shape:
            return torch.empty(0, dtype=dtype, device="cpu").reshape(shape)
        return torch.empty(shape, dtype=dtype, device="cpu")

    def fill(self, opened: OpenedFile, readings: list[Reading]) -> None:
        """Reads all of them. Raises ReadError where the file is not what it was any more."""
        opened.read([(offset, nbytes, tensor.data_ptr()) for offset, nbytes, tensor in readings])

    def delivered(self, tensor: torch.Tensor, path: str) -> torch.Tensor:
        """The tensor where it was asked for."""
        return tensor


class CudaMemory(HostMemory):
    """Tensors with an ordinary lifetime, filled in order with the current stream of their device."""

    def __init__(self, device: torch.device | str | int) -> None:
        self._device = from_torch.resolve(device)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        if 0 in shape:
            return from_torch.allocate((0,), dtype, self._device).reshape(shape)
        return from_torch.allocate(shape, dtype, self._device)

    def fill(self, opened: OpenedFile, readings: list[Reading]) -> None:
        upload_tensors(opened.file, opened.header, readings, self._device)
        opened.file.check_unchanged(opened.header)


class ElsewhereMemory(HostMemory):
    """CPU tensors that torch moves to a device it knows how to reach."""

    all_at_once = False

    def __init__(self, device: torch.device | str | int) -> None:
        self._device = device

    def delivered(self, tensor: torch.Tensor, path: str) -> torch.Tensor:
        try:
            return tensor.to(self._device)
        except AssertionError as error:  # how torch says that it was built without CUDA
            raise RuntimeError(f"{path}: no tensor can go to {self._device}: {error}") from error


def memory_of(device: torch.device | str | int | None) -> HostMemory:
    """What ``device`` (as :func:`.parse_device` gives it) means here; a number is a CUDA device's."""
    if device is None:
        return HostMemory()
    kind = "cuda" if isinstance(device, int) else str(device).partition(":")[0]
    return CudaMemory(device) if kind == "cuda" and from_torch.is_available() else ElsewhereMemory(device)
