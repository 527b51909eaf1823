"""Words of device memory that launches leave their findings in, and their way back to the host."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from .. import _C
from . import from_torch

_WORD = 4
# Words that are asked for together share blocks of at least so many.
_BLOCK_WORDS = 1024


class Flags:
    """Zeros on the current stream, handed out in pieces; read back all together, in the order they were handed out."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._blocks: list[torch.Tensor] = []
        self._used: list[int] = []  # words of each block
        self._reading: list[_C.CudaReadBack] | None = None

    def take(self, words: int) -> int:
        """The address of so many zeros in a row."""
        if not self._blocks or self._blocks[-1].numel() - self._used[-1] < words:
            block = from_torch.allocate((max(words, _BLOCK_WORDS),), torch.int32, self._device)
            stream = from_torch.current_stream(self._device)
            _C.cuda_put_zeros(self._device.index, stream, block.nbytes, block.data_ptr())
            self._blocks.append(block)
            self._used.append(0)
        begin = self._used[-1]
        self._used[-1] += words
        return self._blocks[-1].data_ptr() + begin * _WORD

    def send(self) -> None:
        """What the stream's work so far leaves in them goes to the host. Nothing may be taken until it is received."""
        stream = from_torch.current_stream(self._device)
        used = zip(self._blocks, self._used, strict=True)
        self._reading = [
            _C.CudaReadBack(self._device.index, stream, block.data_ptr(), words * _WORD) for block, words in used
        ]

    @property
    def is_sent(self) -> bool:
        return self._reading is not None

    def is_here(self) -> bool:
        """True when :meth:`receive` would not wait."""
        return self._reading is not None and all(reading.ready() for reading in self._reading)

    def receive(self) -> npt.NDArray[np.uint32]:
        """Waits for them, and starts anew."""
        assert self._reading is not None
        words = [np.frombuffer(reading.wait(), np.uint32) for reading in self._reading]
        self._blocks, self._used, self._reading = [], [], None
        return np.concatenate(words) if words else np.zeros(0, np.uint32)
