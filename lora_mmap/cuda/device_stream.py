"""The stream of factors for weights on one CUDA device: file, pinned ring, arena, grouped launch.

While one window is fused the next is copied and the one after it is read. Nothing waits for the device but
:meth:`DeviceStream.finish`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from .. import _C, native_types
from ..factor_reading import Factor
from ..factor_store import FactorStore
from ..factor_stream import FactorStream, Window
from ..lowering.operands import IndexMap
from ..outcomes import EntryPlan
from ..tensor_source import MemoryTensors
from ..terms import WeightPlan
from . import from_torch, launches
from .arena import Arena, Region, aligned
from .device_record import DeviceRecord
from .window_memory import WindowMemory

# Factors of one window: one upload, few launches. The first fuse begins when the first window has been read.
WINDOW_NBYTES = 16 << 20
# The ring has slots for these and for two copies under way.
READERS = 6
_FLAG_NBYTES = 4


class DeviceStream(FactorStream):
    """All work goes to the stream that is current on ``device`` at construction and must stay current.

    Raises CudaError where the device cannot be used, before anything is written.
    """

    def __init__(
        self,
        entries: Sequence[EntryPlan],
        weights: Iterable[WeightPlan],
        device: torch.device,
        fast: bool,
        store: FactorStore,
        more_steps: int = 0,
    ) -> None:
        super().__init__(entries, weights, WINDOW_NBYTES, store)
        self._device = device
        self._fast = fast
        self._stream = from_torch.current_stream(device)
        _C.cuda_prepare(device.index, self._stream)
        self._layouts = {id(window): self._layout(window) for window in self.windows}
        self._arena = Arena([nbytes for _, nbytes in self._layouts.values()], device)
        self._region: Region | None = None
        self._index_maps: dict[int, int] = {}  # by the host address of the map
        self._made = WindowMemory(device)
        self._made_nbytes = 0
        self._n_jobs = 0
        self._flags = self._zeroed_flags(more_steps)
        self.full: list[int] = []
        self.foreign: list[int] = []
        self._read_back: _C.CudaReadBack | None = None
        self._timed: list[tuple[str, _C.CudaEvent, _C.CudaEvent]] = []

    @property
    def memory(self) -> dict[str, int]:
        return {"arena": self._arena.nbytes + self._flags.nbytes + self._made_nbytes}

    def load(self, window: Window) -> None:
        begin = time.perf_counter()
        places, _ = self._layouts.pop(id(window))
        self._region = region = self._arena.take()
        self._made.clear()
        requests, addresses = [], {}
        self._index_maps = {}
        for key, at in places:
            address = region.address + at
            if isinstance(key, tuple):
                addresses[key] = address
                requests.append(self._request(key, address))
            else:
                self._index_maps[key.ctypes.data] = address
                requests.append((None, None, 0, key.ctypes.data, key.nbytes, address))
        _C.cuda_upload(self._device.index, self._stream, requests, region.free, readers())
        self.seconds["read"] = self.seconds.get("read", 0.0) + time.perf_counter() - begin
        self._addresses = addresses

    def index_map(self, rows_or_columns: IndexMap) -> int:
        known = self._index_maps.get(rows_or_columns.ctypes.data)
        return self._made.place(rows_or_columns) if known is None else known

    def scratch(self, nbytes: int) -> int:
        return self._made.zeros(nbytes)

    def gains(self, jobs: list[native_types.Gains]) -> list[int]:
        self._count(launches.gains(self._device, jobs, self._next_flag), len(jobs))
        return []

    def fuse(self, jobs: list[native_types.Job]) -> list[int]:
        launches.fuse(self._device, jobs, self._next_flag, self._fast)
        self._count(0, len(jobs))
        return []

    def step(self, steps: list[launches.Step], force: bool = False) -> list[int]:
        """Steps (see :func:`launches.step`), counted among the jobs. :meth:`finish` tells of them as of others, and
        leaves in ``full`` those for which a record had no room, in ``foreign`` those whose weight somebody wrote to.

        A weight has a flag for each of its rectangles; ``more_steps`` were asked for beyond that.
        """
        if self._n_jobs + len(steps) > self._flags.numel():
            raise AssertionError(f"{self._n_jobs} jobs and {len(steps)} steps, flags for {self._flags.numel()}")
        launches.step(self._device, steps, self._next_flag, force)
        self._n_jobs += len(steps)
        if self._region is not None:
            self._arena.used(self._region)
        return []

    def record(self, rows: int, cols: int, dtype: str, corrections: bool) -> DeviceRecord:
        """A new one for a rectangle of a weight. Raises torch.OutOfMemoryError."""
        return DeviceRecord(rows, cols, dtype, corrections, self._device)

    @property
    def _next_flag(self) -> int:
        return self._flags.data_ptr() + self._n_jobs * _FLAG_NBYTES

    def _count(self, transient_nbytes: int, n_jobs: int) -> None:
        """After jobs were submitted that read the region."""
        assert self._region is not None
        self._n_jobs += n_jobs
        self._made_nbytes = max(self._made_nbytes, self._made.nbytes + transient_nbytes)
        self._arena.used(self._region)

    def seal(self) -> None:
        self._read_back = _C.CudaReadBack(
            self._device.index, self._stream, self._flags.data_ptr(), self._n_jobs * _FLAG_NBYTES
        )
        self._arena.drop()
        self._made.clear()

    def is_done(self) -> bool:
        return self._read_back is not None and self._read_back.ready()

    def finish(self) -> list[int]:
        assert self._read_back is not None
        flags = np.frombuffer(self._read_back.wait(), np.uint32)
        for name, begin, end in self._timed:
            self.seconds[name] = self.seconds.get(name, 0.0) + end.elapsed_ms(begin) / 1e3
        self._timed.clear()
        self.full = np.flatnonzero(flags & launches.FULL).tolist()
        self.foreign = np.flatnonzero(flags & launches.FOREIGN).tolist()
        overflowed: list[int] = np.flatnonzero(flags & launches.OVERFLOW).tolist()
        return overflowed

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begin = self._now()
        yield
        self._timed.append((name, begin, self._now()))

    def _now(self) -> _C.CudaEvent:
        return _C.cuda_event(self._device.index, self._stream, timing=True)

    def _layout(self, window: Window) -> tuple[list[tuple[Factor | IndexMap, int]], int]:
        """Where each factor and each index map lies in the window's region, and the region's size.

        Factors in the order of their files, so that what is read together is copied together.
        """
        places: list[tuple[Factor | IndexMap, int]] = []
        at = 0
        for factor in sorted(window.factors, key=self._place_in_file):
            places.append((factor, at))
            at += aligned(self.adapters[factor[0]].source.nbytes[factor[1]])
        maps: dict[int, IndexMap] = {}
        for weight in window.weights:
            column_map = weight.geometry.column_map
            for index_map in (*weight.row_maps(), *(() if column_map is None else (column_map,))):
                maps[index_map.ctypes.data] = index_map
        for index_map in maps.values():
            places.append((index_map, at))
            at += aligned(index_map.nbytes)
        return places, at

    def _place_in_file(self, factor: Factor) -> tuple[int, int]:
        adapter, tensor = factor
        source = self.adapters[adapter].source
        return adapter, tensor if isinstance(source, MemoryTensors) else source.offsets[tensor]

    def _request(self, factor: Factor, address: int) -> native_types.Upload:
        adapter, tensor = factor
        source = self.adapters[adapter].source
        nbytes = source.nbytes[tensor]
        if isinstance(source, MemoryTensors):
            return None, None, 0, source.addresses[tensor], nbytes, address
        return source.file, source.header, source.offsets[tensor], 0, nbytes, address

    def _zeroed_flags(self, more: int) -> torch.Tensor:
        count = more + sum(_most_jobs(weight) for window in self.windows for weight in window.weights)
        flags = from_torch.allocate((count,), torch.int32, self._device)
        zeros = np.zeros(count, np.int32)
        free = _C.cuda_event(self._device.index, self._stream)
        requests = [(None, None, 0, zeros.ctypes.data, zeros.nbytes, flags.data_ptr())]
        _C.cuda_upload(self._device.index, self._stream, requests, free, 1)
        return flags


def _most_jobs(weight: WeightPlan) -> int:
    """No fewer than a weight can have flags: for its rectangles, and for what its terms need made first."""
    return len(weight.rectangles()) + sum(term.formula.n_made for term in weight.terms)


def readers() -> int:
    """Threads that read files into the ring."""
    return min(READERS, os.cpu_count() or 1)
