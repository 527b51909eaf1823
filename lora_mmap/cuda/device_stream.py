"""The stream of factors for weights on one CUDA device: file, pinned ring, arena.

While one window is fused the next is copied and the one after it is read. Nothing waits for the device.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

import torch

from .. import _C, native_types
from ..adapter import Adapter
from ..device_blocks import DeviceBlock
from ..factor_reading import Factor, FactorReading
from ..factor_store import FactorStore
from ..factor_stream import FactorStream, Window
from ..lowering.operands import IndexMap
from ..outcomes import EntryPlan
from ..tensor_source import MemoryTensors
from ..terms import WeightPlan
from . import from_torch
from .arena import Arena, Region, aligned
from .window_memory import WindowMemory

# Factors of one window: one upload, few launches. The first fuse begins when the first window has been read.
WINDOW_NBYTES = 16 << 20
# The ring has slots for these and for two copies under way.
READERS = 6


class DeviceStream(FactorStream[WeightPlan]):
    """All work goes to the stream that is current on ``device`` at construction and must stay current.

    With ``keeps`` the factors of every window stay in the store, on the host; with ``stays`` on the device instead, if
    it has room for all of them. Those that the store has there are used where they are. Raises CudaError where the
    device cannot be used, before anything is written.
    """

    def __init__(
        self,
        entries: Sequence[EntryPlan],
        weights: Iterable[WeightPlan],
        device: torch.device,
        store: FactorStore,
        keeps: bool,
        threads: int,
        stays: bool = False,
    ) -> None:
        super().__init__(entries, weights, WINDOW_NBYTES, store)
        self._device = device
        self._stream = from_torch.current_stream(device)
        _C.cuda_prepare(device.index, self._stream)
        self._block = self._room_for_all() if stays else None
        for memory in store.on_devices.memory_on(device):
            from_torch.used_now(memory, device)
        self._layouts = {id(window): self._layout(window) for window in self.windows}
        self._arena = Arena([nbytes for _, nbytes in self._layouts.values()], device)
        self._region: Region | None = None
        self._index_maps: dict[int, int] = {}  # by the host address of the map
        self._made = WindowMemory(device)
        self._made_nbytes = 0
        has_room = self._block is not None
        self._reading = FactorReading(
            self.adapters, self.all_factors(), store, threads, keeps and not has_room, forgets=has_room
        )
        self._timed: list[tuple[str, _C.CudaEvent, _C.CudaEvent]] = []

    @property
    def memory(self) -> dict[str, int]:
        return {"staging": self._reading.staging_nbytes, "arena": self._arena.nbytes + self._made_nbytes}

    def load(self, window: Window[WeightPlan]) -> None:
        begin = time.perf_counter()
        addresses = {factor: at for factor in window.factors if (at := self._address_there(factor)) is not None}
        missing = [factor for factor in window.factors if factor not in addresses]
        self._reading.read(missing)
        places, _ = self._layouts.pop(id(window))
        self._region = region = self._arena.take()
        self._made.clear()
        requests = []
        if self._block is not None:
            addresses |= {factor: self._block.places[self._key(factor)] for factor in missing}
            requests += [self._request(factor, addresses[factor]) for factor in missing]
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
        if self._block is not None:
            self.store.on_devices.add(self._block, [self._key(factor) for factor in missing])
        self.seconds["read"] = self.seconds.get("read", 0.0) + time.perf_counter() - begin
        self._addresses = addresses

    def index_map(self, rows_or_columns: IndexMap) -> int:
        known = self._index_maps.get(rows_or_columns.ctypes.data)
        return self._made.place(rows_or_columns) if known is None else known

    def scratch(self, nbytes: int) -> int:
        return self._made.zeros(nbytes)

    def used(self) -> None:
        """Says that all work with the window that was loaded last has been submitted."""
        assert self._region is not None
        self._made_nbytes = max(self._made_nbytes, self._made.nbytes)
        self._arena.used(self._region)

    def seal(self) -> None:
        self._arena.drop()
        self._made.clear()
        self._reading.close()

    def collect_times(self) -> None:
        """Has the times of stages in ``seconds``. Only when the device is done."""
        for name, begin, end in self._timed:
            self.seconds[name] = self.seconds.get(name, 0.0) + end.elapsed_ms(begin) / 1e3
        self._timed.clear()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begin = self._now()
        yield
        self._timed.append((name, begin, self._now()))

    def _now(self) -> _C.CudaEvent:
        return _C.cuda_event(self._device.index, self._stream, timing=True)

    def _layout(self, window: Window[WeightPlan]) -> tuple[list[tuple[Factor | IndexMap, int]], int]:
        """Where each factor and each index map lies in the window's region, and the region's size.

        Factors in the order of their files, so that what is read together is copied together.
        """
        places: list[tuple[Factor | IndexMap, int]] = []
        at = 0
        passing = [factor for factor in window.factors if self._block is None and self._address_there(factor) is None]
        for factor in sorted(passing, key=self._place_in_file):
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

    def _key(self, factor: Factor) -> tuple[Adapter, int]:
        return self.adapters[factor[0]], factor[1]

    def _address_there(self, factor: Factor) -> int | None:
        return self.store.on_devices.address(self._device, *self._key(factor))

    def _room_for_all(self) -> DeviceBlock | None:
        """Device memory for the factors that are not there yet; None where there is none left."""
        missing = [factor for factor in dict.fromkeys(self.all_factors()) if self._address_there(factor) is None]
        sizes = [aligned(self.adapters[adapter].source.nbytes[tensor]) for adapter, tensor in missing]
        try:
            memory = from_torch.allocate((sum(sizes),), torch.uint8, self._device)
        except from_torch.OutOfMemoryError:
            return None
        begins = accumulate(sizes, initial=memory.data_ptr())
        places = dict(zip(map(self._key, missing), begins, strict=False))
        return DeviceBlock(self._device, memory, places)

    def _place_in_file(self, factor: Factor) -> tuple[int, int]:
        adapter, tensor = factor
        source = self.adapters[adapter].source
        return adapter, tensor if isinstance(source, MemoryTensors) else source.offsets[tensor]

    def _request(self, factor: Factor, to: int) -> native_types.Upload:
        adapter, tensor = factor
        address = self.store.address(self.adapters[adapter], tensor)
        assert address is not None  # the window was read
        return None, None, 0, address, self.adapters[adapter].source.nbytes[tensor], to


def readers() -> int:
    """Threads that read files into the ring."""
    return min(READERS, os.cpu_count() or 1)
