"""Grouped launches on torch's current stream. Asynchronous; tables live in memory that is free again once they ran."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .. import _C, native_types
from . import from_torch

if TYPE_CHECKING:
    from .device_record import DeviceRecord

# What a step finds, in its flag: a result is not finite; a record has no room for a tile's corrections; a tile does not
# hold what the old record knows. Tiles of the latter two are left as they were.
OVERFLOW, FULL, FOREIGN = 1, 2, 4


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


def step(device: torch.device, steps: list[native_types.Step], flags: int, force: bool = False) -> None:
    """Takes rectangles of weights from what their old terms made of them to what the new ones make, in one pass.

    Every tile whose old record says that it holds the old terms' result (all, where there are no old terms), and whose
    new record does not say so already: checked by its hash unless ``force``, undone by terms and corrections or taken
    from pristine values, and fused anew (without new terms: written as it is, to ``out`` if there is one, which changes
    no record). A tile is written last, then its records say so: with old and new exchanged it is taken back.

    ``flags``: the address of one u32 of zeros per step, to which OVERFLOW, FULL and FOREIGN are added.
    """
    native = [(_layer(step, step[6]), _layer(step, step[7]), step[8]) for step in steps]
    for *_, old, new, _ in steps:
        for layer in (old, new):
            if layer is not None:
                _on_device(layer[1]).used_now(device)
    _submit(device, _C.CudaLaunches.step(device.index, native, force), flags)


def _layer(step: native_types.Step, layer: native_types.Side | None) -> native_types.DeviceLayer | None:
    if layer is None:
        return None
    weight, rows, cols, row_stride, col_stride, dtype, *_ = step
    terms, _, values, values_row_stride, values_col_stride = layer
    record = _on_device(layer[1])
    record.require_form(rows, cols, dtype)
    base = (values, values_row_stride, values_col_stride) if values else (weight, row_stride, col_stride)
    job = (weight, base[0], rows, cols, row_stride, col_stride, *base[1:], dtype, terms)
    return job, bool(values), record.address, record.capacity_nbytes, record.has_corrections


def _on_device(record: native_types.Record) -> DeviceRecord:
    assert not isinstance(record, _C.Record)
    return record


def _submit(device: torch.device, launches: _C.CudaLaunches, flags: int = 0) -> None:
    table = from_torch.allocate((launches.table_nbytes,), torch.uint8, device)
    launches.submit(from_torch.current_stream(device), table.data_ptr(), flags)
