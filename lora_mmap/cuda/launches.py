"""Grouped launches on torch's current stream. Asynchronous; tables live in memory that is free again once they ran."""

from __future__ import annotations

import torch

from .. import _C, native_types
from . import from_torch


def copy(device: torch.device, rects: list[native_types.Rect]) -> None:
    """Copies rectangles of that device's memory."""
    _submit(device, _C.CudaLaunches.copy(device.index, rects))


def fuse(device: torch.device, jobs: list[native_types.Job], flags: int, fast: bool) -> None:
    """Fuses jobs; ``flags`` is the address of one u32 per job, which is set to 1 where it overflows."""
    _submit(device, _C.CudaLaunches.fuse(device.index, jobs, fast), flags)


def gains(device: torch.device, jobs: list[native_types.Gains], flags: int) -> int:
    """Computes DoRA's factors; ``flags`` as for :func:`fuse`, set where one is not finite. Returns the bytes of device
    memory that this takes while it runs."""
    launches = _C.CudaLaunches.gains(device.index, jobs)
    _submit(device, launches, flags)
    return launches.table_nbytes


def _submit(device: torch.device, launches: _C.CudaLaunches, flags: int = 0) -> None:
    table = from_torch.allocate((launches.table_nbytes,), torch.uint8, device)
    launches.submit(from_torch.current_stream(device), table.data_ptr(), flags)
