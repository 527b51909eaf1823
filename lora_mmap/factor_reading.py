"""Tensors of files in host memory: kept in a store, or in a small buffer that every window is read into in its turn."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from itertools import accumulate

from . import _C
from .adapter import Adapter
from .factor_store import FactorBlock, FactorStore
from .tensor_source import FileTensors

# One tensor of the composition: (position in the list of distinct adapters, tensor index).
Factor = tuple[int, int]

# A gap up to this many unneeded bytes is read through rather than around.
MAX_GAP_NBYTES = 64 << 10
# Where spans begin in the staging buffer: a cache line.
ALIGNMENT = 64


class FactorReading:
    """``factors`` are all that will be read at some time. With ``keeps`` they stay in the store; without, only what
    they hash to does, with ``forgets`` not even that, and the buffer goes when it is closed."""

    def __init__(
        self,
        adapters: Sequence[Adapter],
        factors: Iterable[Factor],
        store: FactorStore,
        threads: int,
        keeps: bool,
        forgets: bool = False,
    ) -> None:
        self._adapters = adapters
        self._store = store
        self._threads = threads
        self._keeps = keeps
        self._forgets = forgets
        self._staging = _C.Memory(0)
        self.staging_nbytes = 0
        self._wanted = self._wanted_ranges(factors)
        self._passing: list[FactorBlock] = []

    def read(self, factors: Iterable[Factor]) -> None:
        """Reads what the store does not have. What was read before and is not kept is gone."""
        self.let_go()
        by_adapter = self._missing(factors)
        with ExitStack() as stack:
            shared = [adapter for adapter in by_adapter if self._adapters[adapter].resident is not None]
            for adapter in sorted(shared, key=lambda at: id(self._adapters[at])):  # one order, whoever reads
                by_adapter[adapter] = self._share(adapter, by_adapter[adapter], stack)
            self._read_missing({adapter: tensors for adapter, tensors in by_adapter.items() if tensors})

    def _missing(self, factors: Iterable[Factor]) -> dict[int, list[int]]:
        """By adapter, the tensors that the store does not have."""
        by_adapter: dict[int, list[int]] = {}
        for adapter, tensor in factors:
            if self._store.address(self._adapters[adapter], tensor) is None:
                by_adapter.setdefault(adapter, []).append(tensor)
        return by_adapter

    def _share(self, adapter: int, tensors: list[int], stack: ExitStack) -> list[int]:
        """Takes what the cache keeps of these; returns what has to be read. Until ``stack`` ends nobody else reads."""
        opened = self._adapters[adapter]
        assert opened.resident is not None
        stack.enter_context(opened.resident.reading.native)
        for block in opened.resident.blocks_with(tensors):
            self._add(block)
        return [tensor for tensor in tensors if self._store.address(opened, tensor) is None]

    def _add(self, block: FactorBlock) -> None:
        self._store.add(block)
        if not self._keeps:
            self._passing.append(block)

    def _read_missing(self, by_adapter: dict[int, list[int]]) -> None:
        plans = [(adapter, tensors, *self._plan_staging(adapter, tensors)) for adapter, tensors in by_adapter.items()]
        memories = self._memory_for([(adapter, nbytes) for adapter, *_, nbytes in plans])
        requests = []
        for (adapter, _, spans, _, _), (_, base) in zip(plans, memories, strict=True):
            source = self._file(adapter)
            requests += [(source.file, source.header, offset, nbytes, base + at) for offset, nbytes, at in spans]
        _C.read_ranges(requests, self._threads)
        self._store.read_nbytes += sum(nbytes for _, _, _, nbytes, _ in requests)
        for (adapter, tensors, _, positions, _), (memory, base) in zip(plans, memories, strict=True):
            places = {tensor: base + at for tensor, at in zip(tensors, positions, strict=True)}
            block = FactorBlock(self._adapters[adapter], places, memory)
            self._add(block)
            resident = self._adapters[adapter].resident
            if resident is not None:
                resident.keep(block)

    def let_go(self) -> None:
        """Of what was read last and is not kept."""
        for block in self._passing:
            if self._forgets:
                self._store.remove(block)
            else:
                block.let_go()
        self._passing.clear()

    def close(self) -> None:
        """Nothing more will be read."""
        self.let_go()
        self._staging = _C.Memory(0)

    def _memory_for(self, sizes: list[tuple[int, int]]) -> list[tuple[_C.Memory | None, int]]:
        """For each (adapter, size) memory of its own, or a part of the buffer; and its address."""
        passing = [nbytes for adapter, nbytes in sizes if not self._keeps and self._adapters[adapter].resident is None]
        ends = list(accumulate(-(-nbytes // ALIGNMENT) * ALIGNMENT for nbytes in passing))
        if ends and ends[-1] > self._staging.nbytes:
            self._staging = _C.Memory(ends[-1], hugepages=True)
            self.staging_nbytes = ends[-1]
        begins = iter([0, *ends])
        found: list[tuple[_C.Memory | None, int]] = []
        for adapter, nbytes in sizes:
            if self._keeps or self._adapters[adapter].resident is not None:
                memory = _C.Memory(nbytes, hugepages=True)
                found.append((memory, memory.address))
            else:
                found.append((None, self._staging.address + next(begins)))
        return found

    def _file(self, adapter: int) -> FileTensors:
        source = self._adapters[adapter].source
        assert isinstance(source, FileTensors)
        return source

    def _plan_staging(self, adapter: int, tensors: list[int]) -> tuple[list[tuple[int, int, int]], list[int], int]:
        source = self._file(adapter)
        ranges = [(source.offsets[tensor], source.nbytes[tensor]) for tensor in tensors]
        wanted = self._wanted[adapter]
        near = wanted[bisect_left(wanted, min(ranges)) : bisect_left(wanted, max(ranges))]
        return _C.plan_staging(ranges, near, MAX_GAP_NBYTES, ALIGNMENT)

    def _wanted_ranges(self, factors: Iterable[Factor]) -> list[list[tuple[int, int]]]:
        """Per adapter, the ranges somebody reads at some time: gaps that hold one are not read through."""
        needed: list[set[int]] = [set(adapter.alphas()) for adapter in self._adapters]
        for adapter, tensor in factors:
            needed[adapter].add(tensor)
        wanted: list[list[tuple[int, int]]] = []
        for opened, tensors in zip(self._adapters, needed, strict=True):
            source = opened.source
            wanted.append([])
            if isinstance(source, FileTensors):
                wanted[-1] = sorted((source.offsets[tensor], source.nbytes[tensor]) for tensor in tensors)
        return wanted
