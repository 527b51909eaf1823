"""Tensors of a file to memory of their own on a device: large ones straight, small ones many at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .. import _C, native_types
from . import from_torch, launches
from .arena import ALIGNMENT, aligned
from .device_stream import readers

# Below this a copy of its own costs more than a detour: many share one, and one launch brings each to its place.
_SMALL_NBYTES = 1 << 20
_DETOUR_NBYTES = 32 << 20

# (offset in the file, nbytes, the contiguous tensor they fill)
Reading = tuple[int, int, torch.Tensor]


def upload_tensors(file: _C.File, header: _C.Header, readings: list[Reading], device: torch.device) -> None:
    """Fills each tensor with ``nbytes`` of the file from its offset, in order with the device's current stream."""
    readings = sorted((reading for reading in readings if reading[1]), key=lambda reading: reading[0])
    large = readings
    if _C.cuda_device(device.index)["image"] is not None:
        small = [reading for reading in readings if reading[1] < _SMALL_NBYTES]
        if len(small) > 1:
            large = [reading for reading in readings if reading[1] >= _SMALL_NBYTES]
            for batch in _batches(small):
                _upload_together(file, header, batch, device)
    if large:
        _upload(file, header, [(offset, n, tensor.data_ptr()) for offset, n, tensor in large], device)


def _upload_together(file: _C.File, header: _C.Header, readings: list[Reading], device: torch.device) -> None:
    detour = from_torch.allocate((sum(aligned(nbytes) for _, nbytes, _ in readings),), torch.uint8, device)
    address = detour.data_ptr()
    targets, rects = [], []
    for offset, nbytes, tensor in readings:
        targets.append((offset, nbytes, address))
        rects.append(_bytes(tensor.data_ptr(), address, nbytes))
        address += aligned(nbytes)
    _upload(file, header, targets, device)
    launches.copy(device, rects)


def _upload(file: _C.File, header: _C.Header, targets: list[tuple[int, int, int]], device: torch.device) -> None:
    stream = from_torch.current_stream(device)
    requests: list[native_types.Upload] = [
        (file, header, offset, 0, nbytes, address) for offset, nbytes, address in targets
    ]
    _C.cuda_upload(device.index, stream, requests, _C.cuda_event(device.index, stream), readers())


def _batches(readings: list[Reading]) -> Iterator[list[Reading]]:
    batch: list[Reading] = []
    nbytes = 0
    for reading in readings:
        if nbytes + reading[1] > _DETOUR_NBYTES:
            yield batch
            batch, nbytes = [], 0
        batch.append(reading)
        nbytes += aligned(reading[1])
    yield batch


def _bytes(dst: int, src: int, nbytes: int) -> native_types.Rect:
    element = ALIGNMENT if nbytes % ALIGNMENT == 0 and dst % ALIGNMENT == 0 else 1
    count = nbytes // element
    return dst, src, 1, count, count, 1, count, 1, element
