"""Moves of a transaction's weights on a CUDA device, with the ways back from each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch

from . import _C, fault_points
from .base_bytes import read_base
from .base_checkpoint import BaseCheckpoint, BaseTensor
from .base_equality import find_equal
from .batches import batches
from .cuda import from_torch
from .cuda.arena import aligned
from .cuda.device_factors import DeviceFactors
from .cuda.device_record import DeviceRecord
from .cuda.device_stream import WINDOW_NBYTES
from .device_steps import DeviceSteps, Findings
from .foreign import require_ours
from .geometry import Geometry
from .held import Held, Move
from .lowering import lower
from .lowering.jobs import Place, place_of
from .lowering.operands import Operands
from .outcomes import EntryPlan
from .overflow import require_finite
from .pristine_copies import copy_pristine
from .restore import Saved, mark_written, put_back
from .site import Manner
from .steps import in_one_pass


class DeviceMoves:
    """Everything is in order on the current stream. What a launch finds is known when its flags have come back, later
    than the launches that follow: those leave alone what it left alone. ``old`` and ``new`` have the factors of what
    the weights held and shall hold."""

    def __init__(
        self, device: torch.device, entries: Sequence[EntryPlan], manner: Manner, old: DeviceFactors, new: DeviceFactors
    ) -> None:
        self._device = device
        self._entries = entries
        self._manner = manner
        self._old = old
        self._new = new
        self._steps = DeviceSteps(device, manner.force)
        self._made: dict[int, Move] = {}  # the last move to each new state, by identity
        self._full: dict[int, Held] = {}  # of them, those with tiles that found no room in their record
        self._ways_back: list[Callable[[], object]] = []

    def record(self, rows: int, cols: int, dtype: str, corrections: bool) -> DeviceRecord:
        """For a rectangle of a weight there. Raises torch.OutOfMemoryError."""
        return DeviceRecord(rows, cols, dtype, corrections, self._device)

    def load_old(self, held: Iterable[Held]) -> None:
        """What undoes these weights."""
        self._old.load([one.plan for one in held if _needs_factors(one)])

    def undo_nbytes(self, held: Held | None) -> int:
        """Of what undoes it: factors that :meth:`load_old` brings, or the base checkpoint's bytes."""
        if held is None:
            return 0
        if held.base:
            return held.geometry.nbytes
        return self._old.nbytes_for(held.plan) if _needs_factors(held) else 0

    def copies(self, moves: Sequence[Move]) -> list[Saved]:
        """Of the pristine bytes of what the weights hold; :meth:`load_old` went before."""
        return copy_pristine(moves, self._steps, self._old, self._manner)

    def equal_to(self, base: BaseCheckpoint, moves: Sequence[Move]) -> dict[int, BaseTensor]:
        """Which of the weights are what the checkpoint says, by address; :meth:`load_old` went before. Waits."""
        return find_equal(base, moves, self._steps, self._old, self._manner, in_place=False)

    def run(self, moves: Sequence[Move], new: Operands) -> None:
        """The old factors have been loaded. Waits where old and new terms cover other rectangles of a weight, and where
        a file has the pristine bytes."""
        self._run([move for move in moves if in_one_pass(move)], new)
        apart = [move for move in moves if not in_one_pass(move)]
        if apart:
            self._run([Move(move.old, None) for move in apart], new)
            self.settle_findings()  # nothing may be fused into what somebody else wrote
            self._run([Move(None, move.new) for move in apart], new)

    def put_back(self, held: Sequence[Held]) -> None:
        """Makes weights pristine of whose tiles nothing is known: what fast arithmetic made of them it makes again."""
        if held:
            self._ways_back.append(partial(self._fuse_again, held))
            self._put_copies(held)

    def fuse_fast(self, held: Sequence[Held], operands: Operands) -> None:
        """Into weights that are pristine, and have a copy."""
        self._ways_back.append(partial(self._put_copies, held))
        self._fuse_fast(held, operands)

    def require_untouched(self, held: Iterable[Held]) -> None:
        """Raises ModelError where somebody else wrote to one of these weights, before any is written to."""
        for one in held:
            geometry = one.geometry
            scratch = from_torch.allocate((geometry.nbytes,), torch.uint8, self._device)
            self._steps.look_through(one, Place(scratch.data_ptr(), geometry.cols, 1))
        self.settle_findings()

    def send_findings(self) -> None:
        """Has what was found so far come to the host. Nothing may follow before it is settled."""
        self._steps.send(record for move in self._made.values() for record in move.held.records)

    @property
    def are_findings_here(self) -> bool:
        """True when :meth:`settle_findings` would not wait."""
        return self._steps.is_here()

    def settle_findings(self) -> None:
        """Waits for the device. Raises ModelError and FusionOverflowError; what lacked room is remembered."""
        if not self._steps.is_sent:
            self.send_findings()
        findings = self._steps.receive()
        require_ours(self._manner.function, findings.foreign)
        require_finite(self._manner.function, self._entries, findings.overflowed)
        self._full.update((id(held), held) for held in findings.full)

    def copy_what_is_full(self) -> list[Geometry]:
        """Takes what found no room in its record back, and does it again with a copy in place of a journal. Waits, and
        returns these weights."""
        moves = [self._made[id(held)] for held in self._full.values()]
        self._full.clear()
        self._take_back(moves)
        for part in self._by_factors(moves):
            self._old.load([move.old.plan for move in part if move.old])
            self._new.load([move.held.plan for move in part])
            self._run([Move(move.old, None) for move in part if move.old], self._new)
            known = [Move(move.old if move.old and move.old.backup else None, move.new) for move in part]
            for move, saved in zip(known, self.copies(known), strict=True):
                move.held.starts_over(saved, self.record)
            self._run([Move(None, move.new) for move in part], self._new)
        if moves:
            self.settle_findings()
        return [move.held.geometry for move in moves]

    def roll_back(self) -> None:
        """Everything taken back, the last first; tile by tile, as far as it had come."""
        self._steps.forget()
        while self._ways_back:
            self._ways_back[-1]()
            self._ways_back.pop()

    def forget(self) -> None:
        """Nothing will be taken back."""
        self._ways_back.clear()
        self._made.clear()
        self._old.let_go()
        self._new.let_go()

    @property
    def most_table_nbytes(self) -> int:
        """Device memory beside that of operands."""
        return self._steps.most_table_nbytes

    @property
    def trimmed_nbytes(self) -> int:
        """Device memory that records had for a while and did not need."""
        return self._steps.trimmed_nbytes

    def _run(self, moves: Sequence[Move], new: Operands) -> None:
        if moves:
            self._made.update((id(move.new), move) for move in moves if move.new)
            self._ways_back.append(partial(self._take_back, moves))
            places, memory = self._from_base([move.old for move in moves if move.old and move.old.base])
            self._steps.run(moves, self._old, new, places)
            del memory  # when the device is done with it
            mark_written(move.held.geometry for move in moves)

    def _from_base(self, held: Sequence[Held]) -> tuple[dict[int, Place], _C.CudaPinnedBlock | None]:
        """Reads pristine bytes from files: where the device finds them, by address, and the memory."""
        if not held:
            return {}, None
        memory = _C.CudaPinnedBlock(self._device.index, sum(aligned(one.geometry.nbytes) for one in held))
        address, places, items = memory.address, {}, []
        for one in held:
            assert one.base is not None
            place = places[one.geometry.address] = Place(address, one.geometry.cols, 1)
            items.append((one.base, place, one.geometry))
            address += aligned(one.geometry.nbytes)
        read_base(items, self._manner.threads)
        return places, memory

    def _take_back(self, moves: Sequence[Move]) -> None:
        steps = DeviceSteps(self._device, force=True)
        for part in self._by_factors(moves):
            self._old.load([move.old.plan for move in part if move.old])
            self._new.load([move.new.plan for move in part if move.new and move.new.pristine is None])
            steps.run([move.reversed for move in part], self._new, self._old)
            mark_written(move.held.geometry for move in part)

    def _by_factors(self, moves: Sequence[Move]) -> Iterator[list[Move]]:
        """So many together that their factors stay small."""

        def nbytes(move: Move) -> int:
            old = self._old.nbytes_for(move.old.plan) if move.old else 0
            return old + (self._new.nbytes_for(move.new.plan) if move.new else 0)

        return batches(moves, nbytes, WINDOW_NBYTES)

    def _fuse_again(self, held: Sequence[Held]) -> None:
        self._put_copies(held)
        for part in batches(held, lambda one: self._old.nbytes_for(one.plan), WINDOW_NBYTES):
            self._old.load([one.plan for one in part])
            self._fuse_fast(part, self._old)

    def _put_copies(self, held: Sequence[Held]) -> None:
        put_back([one.backup for one in held if one.backup], self._manner.threads)

    def _fuse_fast(self, held: Sequence[Held], operands: Operands) -> None:
        fault_points.reach("lower")
        lowered = lower([one.plan for one in held], operands, {})
        self._steps.make(lowered, Findings())
        fault_points.reach("fuse")
        sums = [one for of in lowered.sums.values() for one in of]
        jobs = [one.job(place_of(one.weight.geometry)) for one in sums]
        self._steps.fuse(jobs, [one.weight for one in sums], fast=True)
        mark_written(one.geometry for one in held)


def _needs_factors(held: Held) -> bool:
    """True for a journal, which its own factors undo."""
    return bool(held.records) and held.tier == "journal"
