"""Factors that stay on the GPU whose weights they are for: undoing and other strengths bring nothing there again."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch

from .adapter import Adapter

# One tensor of an adapter.
Key = tuple[Adapter, int]


@dataclass(slots=True)
class DeviceBlock:
    """Tensors in one piece of device memory, by address."""

    device: torch.device
    memory: torch.Tensor
    places: dict[Key, int]


class DeviceBlocks:
    """Those of one composition. A tensor is found once it was said to be there."""

    def __init__(self) -> None:
        self._blocks: list[DeviceBlock] = []
        self._addresses: dict[tuple[torch.device, Key], int] = {}

    def add(self, block: DeviceBlock, keys: Iterable[Key]) -> None:
        """Says that these tensors of a block are there."""
        if not any(known.memory is block.memory for known in self._blocks):
            self._blocks.append(block)
        self._addresses.update(((block.device, key), block.places[key]) for key in keys)

    def address(self, device: torch.device, adapter: Adapter, tensor: int) -> int | None:
        """Where a tensor lies on a device; None where it does not."""
        return self._addresses.get((device, (adapter, tensor)))

    def of(self, adapters: Collection[Adapter]) -> DeviceBlocks:
        """What there is of these adapters. Memory that others share stays whole."""
        part = DeviceBlocks()
        part._addresses = {place: at for place, at in self._addresses.items() if place[1][0] in adapters}
        part._blocks = [block for block in self._blocks if any(key[0] in adapters for key in block.places)]
        return part

    def take_over(self, other: DeviceBlocks) -> None:
        """Has what the other has, too."""
        for block in other._blocks:
            self.add(block, ())
        self._addresses.update(other._addresses)

    def memory_on(self, device: torch.device) -> list[torch.Tensor]:
        """What lies on one device."""
        return [block.memory for block in self._blocks if block.device == device]

    @property
    def nbytes(self) -> int:
        """Bytes of device memory."""
        return sum(block.memory.nbytes for block in self._blocks)
