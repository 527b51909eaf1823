"""Factors of a cached adapter that stay in memory for whoever needs them next, while the cache has room."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from .sharing import ForkSafeLock

if TYPE_CHECKING:
    from .factor_store import FactorBlock


class ResidentFactors:
    """Blocks of one adapter. Whoever reads what is missing holds ``reading``, so that nobody else reads it too.

    ``guard`` is the cache's lock, under which ``make_room(nbytes)`` is asked whether there is room: it may let go of
    other adapters' blocks.
    """

    def __init__(self, guard: ForkSafeLock, make_room: Callable[[int], bool]) -> None:
        self.reading = ForkSafeLock()
        self._guard = guard
        self._make_room = make_room
        self._block_of: dict[int, FactorBlock] = {}  # by tensor

    def blocks_with(self, tensors: Iterable[int]) -> list[FactorBlock]:
        """Views of the blocks that have some of these tensors: letting go of one leaves the block here."""
        with self._guard.native:
            found = {id(block): block for tensor in tensors if (block := self._block_of.get(tensor)) is not None}
        return [block.view() for block in found.values()]

    def keep(self, block: FactorBlock) -> None:
        """Keeps a block that was just read, if there is room."""
        shared = block.view()
        with self._guard.native:
            if self._make_room(shared.nbytes):
                self._block_of.update(dict.fromkeys(shared.places, shared))

    def let_go(self) -> None:
        """Of everything; compositions keep what they use."""
        with self._guard.native:
            self._block_of = {}

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        with self._guard.native:
            return sum(block.nbytes for block in {id(block): block for block in self._block_of.values()}.values())
