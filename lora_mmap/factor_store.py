"""Factors that outlive the fusion that read them: undoing and changing strengths need them again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate

import torch

from . import _C
from .adapter import Adapter
from .device_blocks import DeviceBlocks
from .errors import ReadError
from .tensor_source import FileTensors, MemoryTensors

# Where tensors begin that are read again.
_ALIGNMENT = 64


@dataclass(slots=True)
class FactorBlock:
    """Tensors of one file that were read together: where they lie, or, once let go, what they hashed to.

    ``memory`` is None where they lie in memory that the next read takes.
    """

    adapter: Adapter
    places: dict[int, int]  # address by tensor; empty while let go
    memory: _C.Memory | None
    hashes: dict[int, int] = field(default_factory=dict)  # by tensor

    @property
    def nbytes(self) -> int:
        return self.memory.nbytes if self.memory is not None else 0

    def view(self) -> FactorBlock:
        """Another block with the same tensors in the same memory, which goes when both have let go of it."""
        return FactorBlock(self.adapter, dict(self.places), self.memory)

    def let_go(self) -> None:
        """Gives the memory back and remembers what was in it."""
        if not self.places:
            return
        nbytes = self.adapter.source.nbytes
        self.hashes = {tensor: _C.hash_bytes(address, nbytes[tensor]) for tensor, address in self.places.items()}
        self.places, self.memory = {}, None

    def recall(self, function: str, threads: int) -> int:
        """Reads the tensors again, and returns how many bytes that took. Raises ReadError where they are not what they
        were, ClosedError for a closed adapter."""
        if self.places:
            return 0
        self.adapter.require_open(function)
        source = self.adapter.source
        assert isinstance(source, FileTensors)
        tensors = list(self.hashes)
        ends = list(accumulate(-(-source.nbytes[tensor] // _ALIGNMENT) * _ALIGNMENT for tensor in tensors))
        memory = _C.Memory(ends[-1], hugepages=True)
        places = {tensor: memory.address + begin for tensor, begin in zip(tensors, [0, *ends], strict=False)}
        requests = [(source.file, source.header, source.offsets[t], source.nbytes[t], places[t]) for t in tensors]
        _C.read_ranges(requests, threads)
        source.file.check_unchanged(source.header)
        for tensor, address in places.items():
            if _C.hash_bytes(address, source.nbytes[tensor]) != self.hashes[tensor]:
                raise ReadError(
                    f"[{function}] {self.adapter.label}: tensor '{source.names[tensor]}' has other bytes than when it "
                    "was fused, which undoing needs; weights were left as they are"
                )
        self.places, self.memory = places, memory
        return sum(source.nbytes[tensor] for tensor in tensors)


class FactorStore:
    """The factors of one composition. Dicts and pickles are in memory anyway: their copies are held on to."""

    def __init__(self) -> None:
        self._blocks: list[FactorBlock] = []
        self._block_of: dict[tuple[Adapter, int], FactorBlock] = {}
        self._tensors: dict[Adapter, list[torch.Tensor]] = {}
        self.on_devices = DeviceBlocks()
        self.read_nbytes = 0  # from files, to put into it or to have again

    def add(self, block: FactorBlock) -> None:
        self._blocks.append(block)
        self._block_of.update(
            dict.fromkeys(((block.adapter, tensor) for tensor in block.places or block.hashes), block)
        )

    def remove(self, block: FactorBlock) -> None:
        """Forgets a block altogether."""
        self._blocks = [other for other in self._blocks if other is not block]
        self._block_of = {key: other for key, other in self._block_of.items() if other is not block}

    def hold(self, adapter: Adapter) -> None:
        """Keeps the tensors of an adapter that is no file, even if it is closed."""
        if isinstance(adapter.source, MemoryTensors) and adapter not in self._tensors:
            adapter.require_open("compose")
            self._tensors[adapter] = adapter.source.tensors

    def address(self, adapter: Adapter, tensor: int) -> int | None:
        """Where a tensor lies; None where it is not in memory."""
        if adapter in self._tensors:
            return self._tensors[adapter][tensor].data_ptr()
        block = self._block_of.get((adapter, tensor))
        return None if block is None else block.places.get(tensor)

    def of(self, adapters: Iterable[Adapter]) -> FactorStore:
        """What it holds of these adapters."""
        wanted, part = set(adapters), FactorStore()
        for block in self._blocks:
            if block.adapter in wanted:
                part.add(block)
        part.on_devices = self.on_devices.of(wanted)
        part._tensors = {adapter: tensors for adapter, tensors in self._tensors.items() if adapter in wanted}
        return part

    def take_over(self, other: FactorStore) -> None:
        """Has what the other has, too."""
        for block in other._blocks:
            self.add(block)
        self._tensors.update(other._tensors)
        self.on_devices.take_over(other.on_devices)

    def recall(self, function: str, threads: int) -> None:
        """Has everything in memory. See :meth:`FactorBlock.recall`."""
        for block in self._blocks:
            self.read_nbytes += block.recall(function, threads)

    def let_go(self) -> None:
        """Of everything that can be read again."""
        for block in self._blocks:
            block.let_go()

    @property
    def nbytes(self) -> int:
        """Bytes in host memory."""
        held = sum(tensor.nbytes for tensors in self._tensors.values() for tensor in tensors)
        return held + sum(block.nbytes for block in self._blocks)
