"""The stream of factors for weights on the CPU: a small staging buffer that every window is read into in its turn."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

from . import _C, native_types
from .adapter import Adapter
from .factor_store import FactorBlock, FactorStore
from .factor_stream import FactorStream, Window
from .host_operands import HostScratch
from .lowering.operands import IndexMap
from .outcomes import EntryPlan
from .tensor_source import FileTensors
from .terms import WeightPlan

# Factors in flight. Larger windows cost memory, smaller ones leave the workers waiting at their ends.
WINDOW_NBYTES = 8 << 20
# A gap up to this many unneeded bytes is read through rather than around.
MAX_GAP_NBYTES = 64 << 10
# Where spans begin in the staging buffer: a cache line.
ALIGNMENT = 64


class HostStream(FactorStream):
    """Everything is done when a call returns. With ``keeps`` the factors of every window stay in the store; without,
    only what they hash to does, and the buffer goes with the stream."""

    def __init__(
        self,
        entries: Sequence[EntryPlan],
        weights: Iterable[WeightPlan],
        threads: int,
        store: FactorStore,
        keeps: bool,
    ) -> None:
        super().__init__(entries, weights, WINDOW_NBYTES, store)
        self._threads = threads
        self._keeps = keeps
        self._staging = _C.Memory(0)
        self._staging_nbytes = 0
        self._wanted = self._wanted_ranges()
        self._passing: list[FactorBlock] = []
        self._made = HostScratch()

    @property
    def memory(self) -> dict[str, int]:
        return {"staging": self._staging_nbytes + self._made.most_nbytes}

    def load(self, window: Window) -> None:
        self._let_go()
        with self.stage("read"):
            self._read(window)

    def _read(self, window: Window) -> None:
        by_adapter: dict[int, list[int]] = {}
        for adapter, tensor in self.missing(window.factors):
            by_adapter.setdefault(adapter, []).append(tensor)
        plans = [(adapter, tensors, *self._plan_staging(adapter, tensors)) for adapter, tensors in by_adapter.items()]
        memories = self._memory_for([nbytes for *_, nbytes in plans])
        requests = []
        for (adapter, _, spans, _, _), (_, base) in zip(plans, memories, strict=True):
            source = self._file(adapter)
            requests += [(source.file, source.header, offset, nbytes, base + at) for offset, nbytes, at in spans]
        _C.read_ranges(requests, self._threads)
        for (adapter, tensors, _, positions, _), (memory, base) in zip(plans, memories, strict=True):
            places = {tensor: base + at for tensor, at in zip(tensors, positions, strict=True)}
            block = FactorBlock(self.adapters[adapter], places, memory)
            self.store.add(block)
            if memory is None:
                self._passing.append(block)
        self._addresses = {(at, tensor): self._in_store(self.adapters[at], tensor) for at, tensor in window.factors}

    def _in_store(self, adapter: Adapter, tensor: int) -> int:
        address = self.store.address(adapter, tensor)
        assert address is not None
        return address

    def _memory_for(self, sizes: list[int]) -> list[tuple[_C.Memory | None, int]]:
        """Memory of its own for each size, or a part of the buffer; and its address."""
        if self._keeps:
            memories = [_C.Memory(nbytes, hugepages=True) for nbytes in sizes]
            return [(memory, memory.address) for memory in memories]
        ends = list(accumulate(-(-nbytes // ALIGNMENT) * ALIGNMENT for nbytes in sizes))
        if ends and ends[-1] > self._staging.nbytes:
            self._staging = _C.Memory(ends[-1], hugepages=True)
            self._staging_nbytes = ends[-1]
        return [(None, self._staging.address + begin) for begin, _ in zip([0, *ends], sizes, strict=False)]

    def index_map(self, rows_or_columns: IndexMap) -> int:
        return self._made.index_map(rows_or_columns)

    def scratch(self, nbytes: int) -> int:
        return self._made.zeros(nbytes)

    def gains(self, jobs: list[native_types.Gains]) -> list[int]:
        return _C.gains(jobs, self._threads)

    def fuse(self, jobs: list[native_types.Job]) -> list[int]:
        return _C.fuse(jobs, self._threads)

    def seal(self) -> None:
        self._let_go()
        self._staging = _C.Memory(0)

    def is_done(self) -> bool:
        return True

    def finish(self) -> list[int]:
        return []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin

    def _let_go(self) -> None:
        """Of the window before."""
        self._made.let_go()
        for block in self._passing:
            block.let_go()
        self._passing.clear()

    def _file(self, adapter: int) -> FileTensors:
        source = self.adapters[adapter].source
        assert isinstance(source, FileTensors)
        return source

    def _plan_staging(self, adapter: int, tensors: list[int]) -> tuple[list[tuple[int, int, int]], list[int], int]:
        source = self._file(adapter)
        ranges = [(source.offsets[tensor], source.nbytes[tensor]) for tensor in tensors]
        wanted = self._wanted[adapter]
        near = wanted[bisect_left(wanted, min(ranges)) : bisect_left(wanted, max(ranges))]
        return _C.plan_staging(ranges, near, MAX_GAP_NBYTES, ALIGNMENT)

    def _wanted_ranges(self) -> list[list[tuple[int, int]]]:
        """Per adapter, the ranges somebody reads at some time: gaps that hold one are not read through."""
        needed: list[set[int]] = [set(adapter.alphas()) for adapter in self.adapters]
        for window in self.windows:
            for adapter, tensor in window.factors:
                needed[adapter].add(tensor)
        wanted: list[list[tuple[int, int]]] = []
        for opened, tensors in zip(self.adapters, needed, strict=True):
            source = opened.source
            wanted.append([])
            if isinstance(source, FileTensors):
                wanted[-1] = sorted((source.offsets[tensor], source.nbytes[tensor]) for tensor in tensors)
        return wanted
