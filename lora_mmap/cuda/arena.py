"""Device memory that the windows of a composition pass through, a bounded number of them at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .. import _C
from . import from_torch

# Where tensors begin, whatever the file had: the widest load of a kernel.
ALIGNMENT = 16
# Windows in flight: one that is fused, one that is copied, one that is read.
_REGIONS = 3


def aligned(nbytes: int) -> int:
    """Rounded up to where the next tensor begins."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


@dataclass(slots=True)
class Region:
    """A part of the arena. ``free`` is the event after which it may be written."""

    address: int
    free: _C.CudaEvent


class Arena:
    """Regions for windows of the given sizes, in their order. If there are few, each window has its own.

    Stream-ordered: to be used, and dropped, with the stream current that was current when it was made.
    """

    def __init__(self, sizes: list[int], device: torch.device) -> None:
        self._device = device
        regions = min(len(sizes), _REGIONS)
        self._stride = aligned(max(sizes, default=0))
        self.nbytes = regions * self._stride
        self._memory: torch.Tensor | None = from_torch.allocate((self.nbytes,), torch.uint8, device)
        fresh = self._event()
        self._regions = [Region(self._memory.data_ptr() + i * self._stride, fresh) for i in range(regions)]
        self._next = 0

    def take(self) -> Region:
        """The region of the next window."""
        region = self._regions[self._next % len(self._regions)]
        self._next += 1
        return region

    def used(self, region: Region) -> None:
        """Says that all work with the region's content has been submitted to the current stream."""
        region.free = self._event()

    def drop(self) -> None:
        """Gives the memory back to torch."""
        self._memory = None

    def _event(self) -> _C.CudaEvent:
        return _C.cuda_event(self._device.index, from_torch.current_stream(self._device))
