"""What ``force`` does with weights that have moved."""

from __future__ import annotations

import torch

from . import _C
from .cuda import from_torch
from .device_steps import DeviceSteps
from .held import Held
from .host_steps import HostSteps
from .lowering.jobs import Place
from .whereabouts import Whereabouts


def forget_written(found: Whereabouts, threads: int) -> None:
    """Those that moved and do not hold what was fused are out of reach: they may be any other weights."""
    for held in list(found.moved):
        if not _is_ours(held, threads):
            found.forget(held)


def _is_ours(held: Held, threads: int) -> bool:
    geometry = held.geometry
    if geometry.device.type == "cpu":
        memory = _C.Memory(geometry.nbytes)
        host = HostSteps(threads, force=False)
        return not host.look_through(held, Place(memory.address, geometry.cols, 1)).foreign
    _C.cuda_prepare(geometry.device.index, from_torch.current_stream(geometry.device))
    scratch = from_torch.allocate((geometry.nbytes,), torch.uint8, geometry.device)
    steps = DeviceSteps(geometry.device, force=False)
    steps.look_through(held, Place(scratch.data_ptr(), geometry.cols, 1))
    steps.send()
    return not steps.receive().foreign
