"""Device memory for what comes up while the jobs of one window are made: zeros, and index maps."""

from __future__ import annotations

import torch

from .. import _C
from ..lowering.operands import IndexMap
from . import from_torch
from .arena import aligned

# Small things share a block.
_BLOCK_NBYTES = 64 << 10


class WindowMemory:
    """Blocks of zeros on the current stream, and what is written over them in its order.

    Stream-ordered: to be used, and dropped, with the stream current that was current when it was made.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._blocks: list[torch.Tensor] = []
        self._free = (0, 0)  # what is left of the last block
        self._maps: dict[int, tuple[IndexMap, int]] = {}  # by identity; held, so that no other takes it

    @property
    def nbytes(self) -> int:
        return sum(block.nbytes for block in self._blocks)

    def zeros(self, nbytes: int) -> int:
        """The address of memory of zeros."""
        nbytes = aligned(max(nbytes, 1))
        begin, end = self._free
        if end - begin < nbytes:
            begin, end = self._add_block(max(nbytes, _BLOCK_NBYTES))
        self._free = begin + nbytes, end
        return begin

    def place(self, index_map: IndexMap) -> int:
        """The address of a copy; the same for the same object."""
        held = self._maps.get(id(index_map))
        if held is None:
            address = self.zeros(index_map.nbytes)
            stream = from_torch.current_stream(self._device)
            _C.cuda_put(self._device.index, stream, index_map.ctypes.data, index_map.nbytes, address)
            held = self._maps[id(index_map)] = index_map, address
        return held[1]

    def clear(self) -> None:
        """Gives everything back to torch; work that was submitted may still use it."""
        self._blocks.clear()
        self._maps.clear()
        self._free = (0, 0)

    def _add_block(self, nbytes: int) -> tuple[int, int]:
        block = from_torch.allocate((nbytes,), torch.uint8, self._device)
        _C.cuda_put_zeros(self._device.index, from_torch.current_stream(self._device), nbytes, block.data_ptr())
        self._blocks.append(block)
        return block.data_ptr(), block.data_ptr() + nbytes
