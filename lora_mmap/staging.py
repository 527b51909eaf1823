"""The stream of factors for weights on the CPU: a small staging buffer that every window is read into in its turn."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from . import _C, native_types
from .factor_stream import Factor, FactorStream, IndexMap, Window
from .outcomes import EntryPlan
from .tensor_source import FileTensors, MemoryTensors
from .terms import WeightPlan

# Factors in flight. Larger windows cost memory, smaller ones leave the workers waiting at their ends.
WINDOW_NBYTES = 8 << 20
# A gap up to this many unneeded bytes is read through rather than around.
MAX_GAP_NBYTES = 64 << 10
# Where spans begin in the staging buffer: a cache line.
ALIGNMENT = 64


class HostStream(FactorStream):
    """Frees its buffer when dropped. Everything is done when a call returns."""

    def __init__(self, entries: Sequence[EntryPlan], weights: Iterable[WeightPlan], threads: int) -> None:
        super().__init__(entries, weights, WINDOW_NBYTES)
        self._threads = threads
        self._staging = _C.Memory(0)
        self._staging_nbytes = 0
        self._wanted = self._wanted_ranges()
        self._maps: dict[int, IndexMap] = {}  # what the jobs of a window point to
        self._scratch: list[npt.NDArray[np.uint8]] = []
        self._scratch_nbytes = self._most_scratch_nbytes = 0

    @property
    def memory(self) -> dict[str, int]:
        return {"staging": self._staging_nbytes + self._most_scratch_nbytes}

    def load(self, window: Window) -> dict[Factor, int]:
        self._let_go()
        with self.stage("read"):
            return self._read(window)

    def _read(self, window: Window) -> dict[Factor, int]:
        addresses: dict[Factor, int] = {}
        by_adapter: dict[int, list[int]] = {}
        for adapter, tensor in window.factors:
            by_adapter.setdefault(adapter, []).append(tensor)
        parts: list[tuple[FileTensors, list[tuple[int, int, int]], int]] = []
        places: list[tuple[Factor, int]] = []
        total = 0
        for adapter, tensors in by_adapter.items():
            source = self.adapters[adapter].source
            if isinstance(source, MemoryTensors):
                addresses.update(((adapter, tensor), source.addresses[tensor]) for tensor in tensors)
                continue
            spans, positions, nbytes = self._plan_staging(adapter, source, tensors)
            parts.append((source, spans, total))
            places += [((adapter, tensor), total + at) for tensor, at in zip(tensors, positions, strict=True)]
            total += -(-nbytes // ALIGNMENT) * ALIGNMENT
        if total > self._staging.nbytes:
            self._staging = _C.Memory(total, hugepages=True)
            self._staging_nbytes = total
        base = self._staging.address
        requests = [
            (source.file, source.header, offset, nbytes, base + begin + at)
            for source, spans, begin in parts
            for offset, nbytes, at in spans
        ]
        _C.read_ranges(requests, self._threads)
        addresses.update((factor, base + at) for factor, at in places)
        return addresses

    def index_map(self, rows_or_columns: IndexMap) -> int:
        self._maps[id(rows_or_columns)] = rows_or_columns
        return rows_or_columns.ctypes.data

    def scratch(self, nbytes: int) -> int:
        zeros = np.zeros(max(nbytes, 1), np.uint8)
        self._scratch.append(zeros)
        self._scratch_nbytes += zeros.nbytes
        self._most_scratch_nbytes = max(self._most_scratch_nbytes, self._scratch_nbytes)
        return zeros.ctypes.data

    def gains(self, jobs: list[native_types.Gains]) -> list[int]:
        return _C.gains(jobs, self._threads)

    def fuse(self, jobs: list[native_types.Job]) -> list[int]:
        return _C.fuse(jobs, self._threads)

    def seal(self) -> None:
        self._staging = _C.Memory(0)
        self._let_go()

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
        """Of what the jobs of the window before pointed to."""
        self._maps.clear()
        self._scratch.clear()
        self._scratch_nbytes = 0

    def _plan_staging(
        self, adapter: int, source: FileTensors, tensors: list[int]
    ) -> tuple[list[tuple[int, int, int]], list[int], int]:
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
