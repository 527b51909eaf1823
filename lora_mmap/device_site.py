"""A transaction's weights on one CUDA device: moved by grouped launches, and moved back the same way."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

import torch

from . import _C, fault_points
from .adapter import Adapter
from .base_checkpoint import BaseTensor
from .batches import batches
from .cuda import from_torch
from .cuda.device_factors import DeviceFactors
from .cuda.device_stream import WINDOW_NBYTES, DeviceStream
from .device_moves import DeviceMoves
from .factor_store import FactorStore
from .factor_stream import Window
from .geometry import Geometry
from .held import JOURNALED, Held, Move
from .outcomes import EntryPlan
from .site import Manner, Site
from .terms import WeightPlan


class DeviceSite(Site):
    """Everything is in order on the stream that is current at construction. An error of the GPU itself that breaks
    torch's context loses its memory.

    ``old`` is what the weights hold, with the adapters of its entries and their factors; ``store`` takes those of the
    new composition. ``replayable`` unless the old factors are out of reach, so that no move could be taken back.
    """

    def __init__(
        self,
        entries: Sequence[EntryPlan],
        weights: list[WeightPlan],
        old: dict[int, Held],
        old_factors: tuple[Sequence[Adapter], FactorStore],
        store: FactorStore,
        device: torch.device,
        manner: Manner,
        replayable: bool,
    ) -> None:
        _C.cuda_prepare(device.index, from_torch.current_stream(device))
        self._old = old
        self._weights = {weight.geometry.address: weight for weight in weights}
        self._manner = manner
        self._replayable = replayable
        self._stream = None
        if weights:
            stays = manner.retain == "device"
            self._stream = DeviceStream(entries, weights, device, store, manner.keeps_factors, manner.threads, stays)
        self._old_factors = DeviceFactors(*old_factors, device)
        self._new_factors = DeviceFactors([entry.adapter for entry in entries], store, device)
        self._moves = DeviceMoves(device, entries, manner, self._old_factors, self._new_factors)
        self._new: dict[int, Held] = {}
        self._base: dict[int, BaseTensor] = {}  # of those that are what the checkpoint says, by address
        self._restore_seconds = 0.0

    @property
    def windows(self) -> list[Window[WeightPlan]]:
        return self._stream.windows if self._stream else []

    def check_unchanged(self) -> None:
        if self._stream:
            self._stream.check_unchanged()

    def fuse(self, window: Window[WeightPlan]) -> None:
        assert self._stream
        fault_points.reach("read")
        self._stream.load(window)
        for weights in batches(window.weights, self._undo_nbytes, WINDOW_NBYTES):
            with self._stream.stage("save"):
                fault_points.reach("save")
                moves = self._prepare(weights)
            with self._stream.stage("fuse"):
                if self._manner.fast:
                    self._moves.fuse_fast([move.held for move in moves], self._stream)
                else:
                    self._moves.run(moves, self._stream)
        self._stream.used()

    def seal(self) -> None:
        if self._stream:
            self._stream.seal()

    def restore(self, undoable: bool) -> Iterator[None]:
        begin = time.perf_counter()
        left = [held for address, held in self._old.items() if address not in self._weights]
        recorded = [held for held in left if held.records]
        if not self._replayable:
            self._moves.require_untouched(recorded)
        fault_points.reach("restore")
        self._moves.put_back([held for held in left if not held.records])
        for part in batches(recorded, self._moves.undo_nbytes, WINDOW_NBYTES):
            fault_points.reach("restore")
            self._moves.load_old(part)
            self._moves.run([Move(held, None) for held in part], self._new_factors)
            yield
        if undoable:
            self._moves.send_findings()
        elif left:
            self._moves.settle_findings()
        self._restore_seconds += time.perf_counter() - begin

    @property
    def is_asynchronous(self) -> bool:
        return True

    def is_done(self) -> bool:
        return self._moves.are_findings_here

    def finish(self) -> list[Geometry]:
        self._moves.settle_findings()
        full = self._moves.copy_what_is_full()
        if self._stream:
            self._stream.collect_times()
        return full

    def roll_back(self) -> None:
        """Takes every move back.

        Nothing is where the factors that this takes are out of reach: a repeated call goes on where this one stopped.
        """
        if self._replayable:
            self.seal()
            self._moves.roll_back()

    def kept(self) -> dict[int, Held]:
        return self._new

    def settle(self) -> None:
        self._moves.forget()
        for address, base in self._base.items():
            if self._new[address].has_corrections:
                with suppress(from_torch.OutOfMemoryError):  # then it keeps its journal
                    self._new[address].becomes_file(base)

    @property
    def seconds(self) -> dict[str, float]:
        return {**(self._stream.seconds if self._stream else {}), "restore": self._restore_seconds}

    def memory(self) -> dict[str, int]:
        spent = self._stream.memory if self._stream else {"staging": 0, "arena": 0}
        arena = max(spent["arena"], self._new_factors.most_nbytes) + self._old_factors.most_nbytes
        return {
            "staging": spent["staging"],
            "arena": arena + self._moves.most_table_nbytes,
            "transient": self._moves.trimmed_nbytes,
        }

    def _undo_nbytes(self, weight: WeightPlan) -> int:
        """Of the old factors that a weight needs."""
        return self._moves.undo_nbytes(self._old.get(weight.geometry.address))

    def _prepare(self, weights: Sequence[WeightPlan]) -> list[Move]:
        """What the weights shall hold, with copies of those whose undoing needs one."""
        olds = {weight.geometry.address: self._old.get(weight.geometry.address) for weight in weights}
        pristine = self._make_pristine([held for held in olds.values() if held])
        moves, copied, journaled = [], [], []
        for weight in weights:
            address = weight.geometry.address
            held = self._new[address] = self._planned(weight)
            old = olds[address]
            moves.append(Move(None if address in pristine else old, held))
            if held.has_corrections:
                journaled.append(moves[-1])
            else:
                copied.append(Move(old if old and (old.backup or address not in pristine) else None, held))
        for move, saved in zip(copied, self._moves.copies(copied), strict=True):
            move.held.backup = saved
        if self._manner.base is not None:
            self._base.update(self._moves.equal_to(self._manner.base, journaled))
        return moves

    def _make_pristine(self, old: Sequence[Held]) -> set[int]:
        """Those of whose tiles nothing is known, and all if fast arithmetic follows. Returns their addresses."""
        self._moves.load_old(old)
        self._moves.put_back([held for held in old if not held.records])
        recorded = [held for held in old if held.records]
        if recorded and self._manner.fast:
            self._moves.run([Move(held, None) for held in recorded], self._new_factors)
            self._moves.settle_findings()  # nothing may be fused into what somebody else wrote
            recorded = []
        return {held.geometry.address for held in old} - {held.geometry.address for held in recorded}

    def _planned(self, weight: WeightPlan) -> Held:
        if self._manner.fast:
            return Held(weight)
        journal = self._manner.restore != "backup" and weight.is_additive and weight.geometry.dtype in JOURNALED
        try:
            return Held.planned(weight, journal, self._moves.record)
        except from_torch.OutOfMemoryError:
            self._moves.settle_findings()  # gives back what the records before this one do not need
        try:
            return Held.planned(weight, journal, self._moves.record)
        except from_torch.OutOfMemoryError:
            return Held.planned(weight, False, self._moves.record)
