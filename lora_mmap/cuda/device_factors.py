"""Factors that are kept, for some weights at a time: those in host memory are brought to the device again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from .. import _C, native_types
from ..adapter import Adapter
from ..factor_store import FactorStore
from ..lowering.operands import IndexMap, Operands
from ..terms import WeightPlan
from . import device_stream, from_torch
from .arena import aligned
from .window_memory import WindowMemory


class DeviceFactors(Operands):
    """The factors of a composition, out of its store. ``adapters`` are those of its entries.

    Stream-ordered: what was loaded is good for work on the stream that was current then.
    """

    def __init__(self, adapters: Sequence[Adapter], store: FactorStore, device: torch.device) -> None:
        self._adapters = adapters
        self._store = store
        self._device = device
        self._made = WindowMemory(device)
        self._block: torch.Tensor | None = None
        self._addresses: dict[tuple[Adapter, int], int] = {}
        self.most_nbytes = 0
        for memory in store.on_devices.memory_on(device):
            from_torch.used_now(memory, device)

    def nbytes_for(self, plan: WeightPlan) -> int:
        """Device memory that the factors of a weight take, what is made of them included."""
        factors = sum(aligned(adapter.source.nbytes[tensor]) for adapter, tensor in self._needed([plan]))
        return factors + sum(term.formula.scratch_nbytes for term in plan.terms)

    def load(self, plans: Iterable[WeightPlan]) -> None:
        """Brings what these weights need; what was there before is gone."""
        self.let_go()
        needed = [key for key in self._needed(plans) if self._store.on_devices.address(self._device, *key) is None]
        if not needed:
            return
        nbytes = sum(aligned(adapter.source.nbytes[tensor]) for adapter, tensor in needed)
        self._block = from_torch.allocate((nbytes,), torch.uint8, self._device)
        at, requests = self._block.data_ptr(), []
        for adapter, tensor in needed:
            requests.append(self._request(adapter, tensor, at))
            self._addresses[adapter, tensor] = at
            at += aligned(adapter.source.nbytes[tensor])
        stream = from_torch.current_stream(self._device)
        free = _C.cuda_event(self._device.index, stream)
        _C.cuda_upload(self._device.index, stream, requests, free, device_stream.readers())

    def let_go(self) -> None:
        """Of what was loaded; work that was submitted may still use it."""
        held = self._made.nbytes + (0 if self._block is None else self._block.nbytes)
        self.most_nbytes = max(self.most_nbytes, held)
        self._block = None
        self._addresses = {}
        self._made.clear()

    def address(self, entry: int, tensor: int) -> int:
        adapter = self._adapters[entry]
        there = self._store.on_devices.address(self._device, adapter, tensor)
        return self._addresses[adapter, tensor] if there is None else there

    def dtype(self, entry: int, tensor: int) -> str:
        return self._adapters[entry].source.dtypes[tensor]

    def index_map(self, rows_or_columns: IndexMap) -> int:
        return self._made.place(rows_or_columns)

    def scratch(self, nbytes: int) -> int:
        return self._made.zeros(nbytes)

    def _needed(self, plans: Iterable[WeightPlan]) -> list[tuple[Adapter, int]]:
        terms = (term for plan in plans for term in plan.terms)
        return list({(self._adapters[term.entry], t): None for term in terms for t in term.formula.tensors})

    def _request(self, adapter: Adapter, tensor: int, to: int) -> native_types.Upload:
        address = self._store.address(adapter, tensor)
        assert address is not None  # nothing is undone before everything was recalled
        return None, None, 0, address, adapter.source.nbytes[tensor], to
