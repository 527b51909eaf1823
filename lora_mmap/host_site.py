"""A transaction's weights on the CPU: moved tile by tile, and moved back the same way."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from . import _C, fault_points
from .adapter import Adapter
from .base_bytes import restore_from_base
from .base_checkpoint import BaseTensor
from .batches import batches
from .factor_store import FactorStore
from .factor_stream import Window
from .foreign import Foreign, require_ours
from .held import JOURNALED, Held, Move
from .host_operands import KeptFactors
from .host_pristine import HostPristine
from .host_steps import HostSteps
from .lowering.operands import Operands
from .outcomes import EntryPlan
from .overflow import require_finite
from .restore import mark_written, place_of_copy, save
from .site import Manner, SynchronousSite
from .staging import HostStream
from .terms import WeightPlan

# Weights that are made pristine between two looks at Ctrl-C; what they point to is small.
_AT_ONCE = 64
# Pristine bytes that are read from a base checkpoint together.
_BASE_NBYTES = 64 << 20
# What the native core needs to take everything back, should memory have run out.
_RESERVE_NBYTES = 32 << 20


class HostSite(SynchronousSite):
    """``old`` is what the weights hold, with the adapters of its entries and their factors; ``store`` takes those of
    the new composition. ``replayable`` unless the old factors are out of reach, so that no move could be taken back."""

    def __init__(
        self,
        entries: Sequence[EntryPlan],
        weights: list[WeightPlan],
        old: dict[int, Held],
        old_factors: tuple[Sequence[Adapter], FactorStore],
        store: FactorStore,
        manner: Manner,
        replayable: bool,
    ) -> None:
        self._entries = entries
        self._old = old
        self._weights = {weight.geometry.address: weight for weight in weights}
        self._manner = manner
        self._stream = HostStream(entries, weights, manner.threads, store, keeps=manner.keeps_factors)
        self._old_factors = KeptFactors(*old_factors)
        self._new_factors = KeptFactors([entry.adapter for entry in entries], store)
        self._replayable = replayable
        self._steps = HostSteps(manner.threads, manner.force)
        self._pristine = HostPristine(self._old_factors, self._steps, manner)
        self._new: dict[int, Held] = {}
        self._base: dict[int, BaseTensor] = {}  # of those that are what the checkpoint says, by address
        self._moves: list[Move] = []
        self._reserve: _C.Memory | None = _C.Memory(_RESERVE_NBYTES)
        self._transient_nbytes = 0
        self._restore_seconds = 0.0

    @property
    def windows(self) -> list[Window[WeightPlan]]:
        return self._stream.windows

    def check_unchanged(self) -> None:
        self._stream.check_unchanged()

    def fuse(self, window: Window[WeightPlan]) -> None:
        fault_points.reach("read")
        self._stream.load(window)
        with self._stream.stage("save"):
            fault_points.reach("save")
            moves = self._prepare(window)
        with self._stream.stage("fuse"):
            for part in batches(moves, _base_nbytes, _BASE_NBYTES):
                self._move(part, self._stream)
            fault_points.reach("keep")
            self._turn_into_backups([move.held for move in moves if move.held.is_overgrown], self._stream)
        self._old_factors.let_go()

    def seal(self) -> None:
        self._stream.seal()

    def restore(self, undoable: bool) -> Iterator[None]:
        begin = time.perf_counter()
        left = [Move(held, None) for address, held in self._old.items() if address not in self._weights]
        if not self._replayable:
            self._require_ours(self._pristine.foreign([move.held for move in left]))
        for first in range(0, len(left), _AT_ONCE):
            fault_points.reach("restore")
            for part in batches(left[first : first + _AT_ONCE], _base_nbytes, _BASE_NBYTES):
                self._move(part, self._new_factors)
            self._old_factors.let_go()
            yield
        self._restore_seconds += time.perf_counter() - begin

    def roll_back(self) -> None:
        """Every move taken back, the last one first; one that had stopped in the middle as far as it had come.

        Nothing is where the factors that this takes are out of reach: a repeated call goes on where this one stopped.
        """
        self._reserve = None
        if not self._replayable:
            return
        steps = HostSteps(self._manner.threads, force=True)
        while self._moves:
            steps.run([self._moves[-1].reversed], self._new_factors, self._old_factors)
            self._moves.pop()
            self._new_factors.let_go()
            self._old_factors.let_go()
        mark_written(held.geometry for held in (*self._new.values(), *self._old.values()))

    def kept(self) -> dict[int, Held]:
        return self._new

    def settle(self) -> None:
        self._reserve = None
        self._moves.clear()
        for address, base in self._base.items():
            backup = self._new[address].backup
            self._transient_nbytes += backup.nbytes if backup else 0
            self._new[address].becomes_file(base)

    @property
    def seconds(self) -> dict[str, float]:
        return {**self._stream.seconds, "restore": self._restore_seconds}

    def memory(self) -> dict[str, int]:
        return {**self._stream.memory, "transient": self._transient_nbytes}

    def _prepare(self, window: Window[WeightPlan]) -> list[Move]:
        """What the weights of a window shall hold, with copies of those whose undoing needs one."""
        moves = []
        for weight in window.weights:
            address = weight.geometry.address
            journals = self._manner.restore != "backup" and weight.is_additive and weight.geometry.dtype in JOURNALED
            self._new[address] = Held.planned(weight, journals)
            moves.append(Move(self._old.get(address), self._new[address]))
        copied = [move for move in moves if not move.held.has_corrections]
        for move, saved in zip(copied, self._pristine.copies(copied), strict=True):
            move.held.backup = saved
        if self._manner.base is not None:
            journaled = [move for move in moves if move.held.has_corrections]
            self._base.update(self._pristine.equal_to(self._manner.base, journaled))
        return moves

    def _move(self, moves: Sequence[Move], operands: Operands) -> None:
        self._moves += moves
        read = [move.old for move in moves if move.new is None and move.old and move.old.is_file_whole]
        self._require_ours(restore_from_base(read, self._manner))
        rest = [move for move in moves if not (move.new is None and move.old and move.old.is_file_whole)]
        places, memory = self._pristine.from_base([move.old for move in rest if move.old and move.old.base])
        outcome = self._steps.run(rest, self._old_factors, operands, places)
        del memory
        mark_written(move.held.geometry for move in moves)
        self._require_ours(outcome.foreign)
        require_finite(self._manner.function, self._entries, outcome.overflowed)

    def _turn_into_backups(self, grown: list[Held], operands: Operands) -> None:
        saved = save([held.geometry for held in grown], self._manner.threads)
        places = [place_of_copy(one) for one in saved]
        self._require_ours(self._steps.extract(grown, places, operands).foreign)
        for held, one in zip(grown, saved, strict=True):
            held.becomes_backup(one)

    def _require_ours(self, foreign: Sequence[Foreign]) -> None:
        require_ours(self._manner.function, foreign)


def _base_nbytes(move: Move) -> int:
    """What has to be read from a base checkpoint for it."""
    return move.old.geometry.nbytes if move.old and move.old.base else 0
