"""Steps on weights and records in host memory, for the emulator."""

import numpy as np
import torch
from emulator import aligned_copy
from fusion_reference import NAMES, job

from lora_mmap import _C
from lora_mmap.cuda import device_record
from lora_mmap.cuda.launches import FOREIGN, FULL, OVERFLOW

GUARD = 0xA7


class Record:
    """As :class:`lora_mmap.cuda.device_record.DeviceRecord`; what stands behind it is looked after."""

    def __init__(self, weight, corrections=True, capacity=None):
        if capacity is None:
            capacity = max(weight.nbytes, 2048) if corrections else 0
        form = (*weight.shape, NAMES[weight.dtype], capacity)
        self.tiles, self._head_nbytes, self.capacity = _C.cuda_record_layout(*form)
        nbytes = self._head_nbytes + self.capacity
        self._memory = aligned_copy(bytes(nbytes) + bytes([GUARD]) * 64)
        self.corrections = corrections

    @property
    def address(self):
        assert (self._memory[-64:] == GUARD).all()
        return self._memory.ctypes.data

    @property
    def used(self):
        return 4 * int(self._memory[:4].view(np.uint32)[0])

    @property
    def foreign(self):
        return int(self._memory[4:8].view(np.uint32)[0])

    @property
    def nbytes(self):
        """What it needs."""
        return self._head_nbytes + self.used

    @property
    def entries(self):
        return self._memory[8 : self._head_nbytes].view(device_record._TILE)

    @property
    def states(self):
        return sorted(set(self.entries["state"].tolist()))


def layer(weight, terms, record, values=None):
    return job(weight, terms, values), values is not None, record.address, record.capacity, record.corrections


def step(weight, old=None, new=None, out=None):
    """``old`` and ``new``: (terms, record) or (terms, record, values)."""
    place = None if out is None else (out.data_ptr(), *out.stride())
    return (old and layer(weight, *old), new and layer(weight, *new), place)


def planted(weight, generator):
    """The weight with what is hard to bring back in a part of its elements: NaNs with payloads, infinities, zeros of
    both signs, subnormals, the largest and the smallest."""
    info = torch.finfo(weight.dtype)
    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.element_size()]
    nans = torch.tensor([float("nan")] * 3, dtype=weight.dtype).view(kind) ^ torch.tensor([0, 1, 5], dtype=kind)
    hard = [0.0, -0.0, info.max, -info.max, info.tiny, -info.tiny, info.tiny / 4, -info.tiny / 2, info.eps]
    hard = torch.tensor([*hard, float("inf"), float("-inf")], dtype=weight.dtype)
    hard = torch.cat([hard, nans.view(weight.dtype), -nans.view(weight.dtype)])
    flat = weight.reshape(-1).clone()
    at = torch.randperm(flat.numel(), generator=generator)[: max(1, flat.numel() // 5)]
    flat[at] = hard[torch.randint(len(hard), (len(at),), generator=generator)]
    return flat.reshape(weight.shape)


__all__ = ["FOREIGN", "FULL", "OVERFLOW", "Record", "layer", "planted", "step"]
