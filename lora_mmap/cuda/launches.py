"""Grouped launches on torch's current stream. Asynchronous; tables live in memory that is free again once they ran."""

from __future__ import annotations

import torch

from .. import _C, native_types
from . import from_torch


def copy(device: torch.device, rects: list[native_types.Rect]) -> None:
    """Copies rectangles of that device's memory."""
    nbytes = _C.cuda_copy_table_nbytes(rects)
    table = from_torch.allocate((nbytes,), torch.uint8, device)
    _C.cuda_copy(device.index, from_torch.current_stream(device), rects, table.data_ptr(), nbytes)


def fuse(device: torch.device, jobs: list[native_types.Job], flags: int, fast: bool) -> None:
    """Fuses jobs; ``flags`` is the address of one u32 per job, which is set to 1 where it overflows."""
    nbytes = _C.cuda_fuse_table_nbytes(jobs)
    table = from_torch.allocate((nbytes,), torch.uint8, device)
    _C.cuda_fuse(device.index, from_torch.current_stream(device), jobs, table.data_ptr(), nbytes, flags, fast)
