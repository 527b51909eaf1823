"""The pristine bytes of weights on the CPU that adapters may be in: copied, rebuilt, read, compared."""

from __future__ import annotations

from collections.abc import Sequence

from . import _C
from .base_bytes import read_base
from .base_checkpoint import BaseCheckpoint, BaseTensor
from .base_equality import find_equal
from .foreign import Foreign
from .held import Held, Move
from .host_operands import KeptFactors
from .host_steps import HostSteps
from .lowering.jobs import Place
from .pristine_copies import copy_pristine
from .restore import Saved
from .site import Manner


class HostPristine:
    """``factors`` are those of what the weights hold."""

    def __init__(self, factors: KeptFactors, steps: HostSteps, manner: Manner) -> None:
        self._factors = factors
        self._steps = steps
        self._manner = manner

    def copies(self, moves: Sequence[Move]) -> list[Saved]:
        """The bytes in memory, for each move: what there is already, or a new block for all others."""
        return copy_pristine(moves, self._steps, self._factors, self._manner)

    def equal_to(self, base: BaseCheckpoint, moves: Sequence[Move]) -> dict[int, BaseTensor]:
        """Which of the weights are what the checkpoint says, by address."""
        return find_equal(base, moves, self._steps, self._factors, self._manner, in_place=True)

    def from_base(self, held: Sequence[Held]) -> tuple[dict[int, Place], list[_C.Memory]]:
        """Reads the bytes from files: where they lie, by address, and the memory."""
        places, items, memories = {}, [], []
        for one in held:
            assert one.base is not None
            memory = _C.Memory(one.geometry.nbytes, hugepages=True)
            place = Place(memory.address, one.geometry.cols, 1)
            memories.append(memory)
            places[one.geometry.address] = place
            items.append((one.base, place, one.geometry))
        read_base(items, self._manner.threads)
        return places, memories

    def foreign(self, held: Sequence[Held]) -> list[Foreign]:
        """Tiles that somebody else wrote to, of the first weight that has such."""
        for one in held:
            memory = _C.Memory(one.geometry.nbytes)
            outcome = self._steps.look_through(one, Place(memory.address, one.geometry.cols, 1))
            if outcome.foreign:
                return outcome.foreign
        return []
