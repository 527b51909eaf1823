"""The adapters of one module by name, and which of them are in its weights.

Known per module, not per pipeline: two pipelines that share a module see the same.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from weakref import WeakKeyDictionary

from torch import nn

from ..adapter import Adapter
from ..leases import Lease
from ..sharing import ForkSafeLock

Entry = tuple[Adapter, float]
Named = tuple[str, Entry]


class NamedAdapters:
    """``loaded`` is in the order of loading; ``numbers`` and ``turns`` count loading and activation over all modules.
    ``retain`` is where factors are kept, as :func:`.compose` calls it. The caller holds the lock of the module's
    state."""

    def __init__(self) -> None:
        self.loaded: dict[str, Lease] = {}
        self.numbers: dict[str, int] = {}
        self.turns: dict[str, int] = {}
        self.retain = "memory"
        self._placed: list[Named] = []  # what the last composition had that had something under a name

    def load(self, name: str, lease: Lease, number: int) -> None:
        """Knows an adapter from now on."""
        self.loaded[name] = lease
        self.numbers[name] = number

    def forget(self, names: Collection[str]) -> None:
        """The opposite, of adapters that are not active any more."""
        for name in names:
            for known in (self.loaded, self.numbers, self.turns):
                known.pop(name, None)
        self._placed = [(name, entry) for name, entry in self._placed if name in self.loaded]

    def placed(self, entries: Sequence[Entry]) -> list[Named]:
        """The active ones: those among a composition's entries that were composed under a name."""
        here = {id(entry) for entry in entries}
        return [(name, entry) for name, entry in self._placed if id(entry) in here]

    def nameless(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those that were composed without a name."""
        named = {id(entry) for _, entry in self._placed}
        return [entry for entry in entries if id(entry) not in named]

    def place(self, named: Sequence[Named]) -> None:
        """Says what the composition that was made now has under a name."""
        if named:
            self._placed = list(named)

    @property
    def last(self) -> list[tuple[str, float]]:
        """Those that were active last, with their strengths."""
        return [(name, strength) for name, (_, strength) in self._placed]

    def forget_last(self) -> None:
        """Others have been active since, in other modules."""
        self._placed = []

    def entries_of(self, strengths: Sequence[tuple[str, float]]) -> list[Named]:
        """New entries for those of these adapters that the module has."""
        return [(name, (self.loaded[name].adapter, strength)) for name, strength in strengths if name in self.loaded]


_lock = ForkSafeLock()
_known: WeakKeyDictionary[nn.Module, NamedAdapters] = WeakKeyDictionary()


def named_adapters(module: nn.Module) -> NamedAdapters:
    """Those of an unwrapped module, made on first use."""
    with _lock.native:
        found = _known.get(module)
        if found is None:
            found = _known[module] = NamedAdapters()
        return found
