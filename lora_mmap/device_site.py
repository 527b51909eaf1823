"""A transaction's weights on one CUDA device: moved by grouped launches, and moved back the same way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from . import _C, fault_points
from .adapter import Adapter
from .batches import batches
from .cuda import from_torch
from .cuda.device_factors import DeviceFactors
from .cuda.device_record import DeviceRecord
from .cuda.device_stream import WINDOW_NBYTES, DeviceStream
from .device_steps import DeviceSteps, Findings
from .factor_store import FactorStore
from .factor_stream import Window
from .foreign import require_ours
from .held import JOURNALED, Held, Move
from .lowering import lower
from .lowering.jobs import Place, place_of
from .outcomes import EntryPlan
from .overflow import require_finite
from .pristine_copies import copy_pristine
from .restore import mark_written, put_back, save
from .site import Manner, Site
from .steps import in_one_pass
from .terms import WeightPlan


class DeviceSite(Site):
    """Everything is in order on the stream that is current at construction. What a launch finds is known when its
    flags have come back, and so later than the launches that follow: those leave what it left alone alone.

    ``old`` is what the weights hold, with the adapters of its entries and their factors; ``store`` takes those of the
    new composition. ``replayable`` unless the old factors are out of reach, so that no move could be taken back. An
    error of the GPU itself that breaks torch's context loses its memory.
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
        self._entries = entries
        self._old = old
        self._weights = {weight.geometry.address: weight for weight in weights}
        self._device = device
        self._manner = manner
        self._replayable = replayable
        self._journals = manner.restore != "backup" and not manner.fast
        self._stream = None
        if weights:
            self._stream = DeviceStream(entries, weights, device, store, manner.keeps_factors, manner.threads)
        self._old_factors = DeviceFactors(*old_factors, device)
        self._new_factors = DeviceFactors([entry.adapter for entry in entries], store, device)
        self._steps = DeviceSteps(device, manner.force)
        self._new: dict[int, Held] = {}
        self._made: dict[int, Move] = {}  # the last move to each of the new, by identity
        self._full: dict[int, Held] = {}  # of them, those with tiles that found no room in their record
        self._ways_back: list[Callable[[], object]] = []
        self._transient_nbytes = 0
        self._restore_seconds = 0.0

    @property
    def windows(self) -> list[Window]:
        return self._stream.windows if self._stream else []

    def check_unchanged(self) -> None:
        if self._stream:
            self._stream.check_unchanged()

    def fuse(self, window: Window) -> None:
        def old_nbytes(weight: WeightPlan) -> int:
            old = self._old.get(weight.geometry.address)
            return self._undo_nbytes(old) if old else 0

        assert self._stream
        fault_points.reach("read")
        self._stream.load(window)
        for weights in batches(window.weights, old_nbytes, WINDOW_NBYTES):
            with self._stream.stage("save"):
                fault_points.reach("save")
                moves = self._prepare(weights)
            with self._stream.stage("fuse"):
                if self._manner.fast:
                    self._fuse_fast([move.held for move in moves])
                else:
                    self._fuse_recorded(moves)
        self._stream.used()

    def seal(self) -> None:
        if self._stream:
            self._stream.seal()

    def restore(self, undoable: bool) -> Iterator[None]:
        begin = time.perf_counter()
        left = [held for address, held in self._old.items() if address not in self._weights]
        recorded = [held for held in left if held.records]
        if not self._replayable:
            self._require_untouched(recorded)
        fault_points.reach("restore")
        self._put_back([held for held in left if not held.records], undoable)
        for part in batches(recorded, self._undo_nbytes, WINDOW_NBYTES):
            fault_points.reach("restore")
            self._load_old(part)
            self._move([Move(held, None) for held in part])
            yield
        if undoable:
            self._send()
        elif left:
            self._settle_findings()
        self._old_factors.let_go()
        self._restore_seconds += time.perf_counter() - begin

    @property
    def is_asynchronous(self) -> bool:
        return True

    def is_done(self) -> bool:
        return self._steps.is_here()

    def finish(self) -> None:
        self._settle_findings()
        if self._full:
            self._copy_what_is_full()
            self._settle_findings()
        if self._stream:
            self._stream.collect_times()

    def roll_back(self) -> None:
        """Every move taken back, the last one first; tile by tile, as far as it had come.

        Nothing is where the factors that this takes are out of reach: a repeated call goes on where this one stopped.
        """
        if not self._replayable:
            return
        self.seal()
        self._steps.forget()
        while self._ways_back:
            self._ways_back[-1]()
            self._ways_back.pop()

    def kept(self) -> dict[int, Held]:
        return self._new

    def settle(self) -> None:
        self._ways_back.clear()
        self._made.clear()
        self._old_factors.let_go()
        self._new_factors.let_go()

    @property
    def seconds(self) -> dict[str, float]:
        spent = self._stream.seconds if self._stream else {}
        return {**spent, "restore": spent.get("restore", 0.0) + self._restore_seconds}

    def memory(self) -> dict[str, int]:
        spent = self._stream.memory if self._stream else {"staging": 0, "arena": 0}
        arena = max(spent["arena"], self._new_factors.most_nbytes) + self._old_factors.most_nbytes
        return {
            "staging": spent["staging"],
            "arena": arena + self._steps.most_table_nbytes,
            "transient": self._transient_nbytes + self._steps.trimmed_nbytes,
        }

    def _prepare(self, weights: Sequence[WeightPlan]) -> list[Move]:
        """What the weights shall hold, with copies of those whose undoing needs one."""
        olds = {weight.geometry.address: self._old.get(weight.geometry.address) for weight in weights}
        pristine = self._make_pristine([held for held in olds.values() if held])
        moves, copied = [], []
        for weight in weights:
            address = weight.geometry.address
            held = self._new[address] = self._planned(weight)
            old = olds[address]
            moves.append(Move(None if address in pristine else old, held))
            if not held.has_corrections:
                copied.append(Move(old if old and (old.backup or address not in pristine) else None, held))
        saved = copy_pristine(copied, self._steps, self._old_factors, self._manner)
        for move, one in zip(copied, saved, strict=True):
            move.held.backup = one
        return moves

    def _make_pristine(self, old: Sequence[Held]) -> set[int]:
        """Those of whose tiles nothing is known, and all if fast arithmetic follows. Returns their addresses."""
        self._load_old(old)
        self._put_back([held for held in old if not held.records], undoable=True)
        recorded = [held for held in old if held.records]
        if recorded and self._manner.fast:
            self._move([Move(held, None) for held in recorded])
            self._settle_findings()  # nothing may be fused into what somebody else wrote
            recorded = []
        return {held.geometry.address for held in old} - {held.geometry.address for held in recorded}

    def _planned(self, weight: WeightPlan) -> Held:
        if self._manner.fast:
            return Held(weight, weight.geometry.weight.detach())
        journal = self._journals and weight.is_additive and weight.geometry.dtype in JOURNALED
        try:
            return Held.planned(weight, journal, self._record)
        except torch.OutOfMemoryError:
            self._settle_findings()  # gives back what the records before this one do not need
        try:
            return Held.planned(weight, journal, self._record)
        except torch.OutOfMemoryError:
            return Held.planned(weight, False, self._record)

    def _record(self, rows: int, cols: int, dtype: str, corrections: bool) -> DeviceRecord:
        return DeviceRecord(rows, cols, dtype, corrections, self._device)

    def _put_back(self, held: Sequence[Held], undoable: bool) -> None:
        """Makes weights pristine of whose tiles nothing is known."""
        if undoable and held:
            before = save([one.geometry for one in held], self._manner.threads)
            self._transient_nbytes += sum(one.nbytes for one in before)
            self._ways_back.append(partial(put_back, before, self._manner.threads))
        put_back([one.backup for one in held if one.backup], self._manner.threads)

    def _fuse_fast(self, held: Sequence[Held]) -> None:
        """Into weights that are pristine."""
        assert self._stream
        copies = [one.backup for one in held if one.backup]
        self._ways_back.append(partial(put_back, copies, self._manner.threads))
        fault_points.reach("lower")
        lowered = lower([one.plan for one in held], self._stream, {})
        self._steps.make(lowered, Findings())
        fault_points.reach("fuse")
        sums = [one for of in lowered.sums.values() for one in of]
        jobs = [one.job(place_of(one.weight.geometry)) for one in sums]
        self._steps.fuse(jobs, [one.weight for one in sums], fast=True)
        mark_written(one.tensor for one in held)

    def _fuse_recorded(self, moves: Sequence[Move]) -> None:
        self._move([move for move in moves if in_one_pass(move)])
        apart = [move for move in moves if not in_one_pass(move)]
        if apart:
            self._move([Move(move.old, None) for move in apart])
            self._settle_findings()  # nothing may be fused into what somebody else wrote
            self._move([Move(None, move.new) for move in apart])

    def _move(self, moves: Sequence[Move]) -> None:
        """Once the old factors have been loaded, and the window."""
        if moves:
            self._note(moves)
            self._steps.run(moves, self._old_factors, self._stream or self._new_factors)

    def _note(self, moves: Sequence[Move]) -> None:
        self._made.update((id(move.new), move) for move in moves if move.new)
        self._ways_back.append(partial(self._take_back, moves))
        mark_written(move.held.tensor for move in moves)

    def _take_back(self, moves: Sequence[Move]) -> None:
        steps = DeviceSteps(self._device, force=True)
        for part in self._by_factors(moves):
            self._old_factors.load([move.old.plan for move in part if move.old])
            self._new_factors.load([move.new.plan for move in part if move.new and move.new.pristine is None])
            steps.run([move.reversed for move in part], self._new_factors, self._old_factors)
            mark_written(move.held.tensor for move in part)

    def _copy_what_is_full(self) -> None:
        """Takes what found no room in its record back, and does it again with a copy in place of a journal."""
        moves = [self._made[id(held)] for held in self._full.values()]
        self._full.clear()
        self._take_back(moves)
        for part in self._by_factors(moves):
            self._old_factors.load([move.old.plan for move in part if move.old])
            self._new_factors.load([move.held.plan for move in part])
            undone = [Move(move.old, None) for move in part if move.old]
            self._note(undone)
            self._steps.run(undone, self._old_factors, self._new_factors)
            kept = [Move(move.old if move.old and move.old.backup else None, move.new) for move in part]
            for move, saved in zip(
                kept, copy_pristine(kept, self._steps, self._old_factors, self._manner), strict=True
            ):
                move.held.starts_over(saved, self._record)
            again = [Move(None, move.new) for move in part]
            self._note(again)
            self._steps.run(again, self._old_factors, self._new_factors)

    def _load_old(self, held: Sequence[Held]) -> None:
        """What undoes these weights."""
        self._old_factors.load([one.plan for one in held if _needs_factors(one)])

    def _by_factors(self, moves: Sequence[Move]) -> Iterator[list[Move]]:
        """So many together that their factors stay small."""

        def nbytes(move: Move) -> int:
            old = self._old_factors.nbytes_for(move.old.plan) if move.old else 0
            return old + (self._new_factors.nbytes_for(move.new.plan) if move.new else 0)

        return batches(moves, nbytes, WINDOW_NBYTES)

    def _undo_nbytes(self, held: Held) -> int:
        """Of the factors that :meth:`_load_old` brings."""
        return self._old_factors.nbytes_for(held.plan) if _needs_factors(held) else 0

    def _require_untouched(self, held: Sequence[Held]) -> None:
        """Raises ModelError where somebody else wrote to one of these weights, before any is written to."""
        for one in held:
            geometry = one.geometry
            scratch = from_torch.allocate((geometry.nbytes,), torch.uint8, self._device)
            self._steps.look_through(one, Place(scratch.data_ptr(), geometry.cols, 1))
        self._settle_findings()

    def _send(self) -> None:
        self._steps.send(record for move in self._made.values() for record in move.held.records)

    def _settle_findings(self) -> None:
        """Waits for the device. Raises ModelError and FusionOverflowError."""
        if not self._steps.is_sent:
            self._send()
        findings = self._steps.receive()
        require_ours(self._manner.function, findings.foreign)
        require_finite(self._manner.function, self._entries, findings.overflowed)
        self._full.update((id(held), held) for held in findings.full)


def _needs_factors(held: Held) -> bool:
    """True for a journal, which its own factors undo."""
    return bool(held.records) and held.pristine is None
