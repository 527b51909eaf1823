"""Which factors are read together. A window is a run of weights whose factors fit a budget together.

Weights that share a tensor share a window, so every byte of a file is read once per device.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from .adapter import Adapter
from .factor_reading import Factor
from .factor_store import FactorStore
from .lowering.operands import Operands
from .outcomes import EntryPlan
from .tensor_source import FileTensors
from .terms import Planned

P = TypeVar("P", bound=Planned)


@dataclass(slots=True)
class Window(Generic[P]):
    """Weights fused together, and the factors they need."""

    weights: list[P] = field(default_factory=list)
    factors: dict[Factor, None] = field(default_factory=dict)
    nbytes: int = 0


class FactorStream(Operands, Generic[P]):
    """Brings the factors of a plan, window by window, to where the weights of one device can be fused with them.

    ``store`` has what need not be read. Not thread-safe. What a subclass does may be asynchronous: it is in order with
    everything else that is done to the weights there.
    """

    def __init__(self, entries: Sequence[EntryPlan], weights: Iterable[P], budget: int, store: FactorStore) -> None:
        self.adapters: list[Adapter] = list({id(entry.adapter): entry.adapter for entry in entries}.values())
        position = {id(adapter): i for i, adapter in enumerate(self.adapters)}
        self._adapter_of = [position[id(entry.adapter)] for entry in entries]
        self.store = store
        self.seconds: dict[str, float] = {}  # per stage
        self.windows = list(self._make_windows(list(weights), budget))
        self._addresses: Mapping[Factor, int] = {}  # of the window that was loaded last
        missing = {adapter for window in self.windows for adapter, _ in self.missing(window.factors)}
        self._read_from = [self.adapters[adapter] for adapter in sorted(missing)]

    @abstractmethod
    def load(self, window: Window[P]) -> None:
        """Reads what the window needs. Factors, maps and scratch of the one before are gone."""

    @abstractmethod
    def seal(self) -> None:
        """Says that nothing more will be loaded; lets go of what only that needs."""

    @abstractmethod
    def stage(self, name: str) -> AbstractContextManager[None]:
        """Adds the time of what is done inside to ``seconds[name]``, now or when it is known."""

    @property
    @abstractmethod
    def memory(self) -> Mapping[str, int]:
        """Bytes held for the stream alone, by kind: ``staging`` on the host or ``arena`` on the device."""

    def address(self, entry: int, tensor: int) -> int:
        return self._addresses[self._adapter_of[entry], tensor]

    def dtype(self, entry: int, tensor: int) -> str:
        return self.adapters[self._adapter_of[entry]].source.dtypes[tensor]

    def all_factors(self) -> list[Factor]:
        """Of all windows."""
        return [factor for window in self.windows for factor in window.factors]

    def in_store(self, factors: Iterable[Factor]) -> dict[Factor, int]:
        """Addresses of those that the store has."""
        found = ((factor, self.store.address(self.adapters[factor[0]], factor[1])) for factor in factors)
        return {factor: address for factor, address in found if address is not None}

    def missing(self, factors: Iterable[Factor]) -> list[Factor]:
        """Those that have to be read from files or copied from dicts."""
        return [(at, tensor) for at, tensor in factors if self.store.address(self.adapters[at], tensor) is None]

    def check_unchanged(self) -> None:
        """Raises ReadError when a file that is read is not the one that was opened any more, ClosedError for a closed
        adapter."""
        for adapter in self._read_from:
            adapter.require_open("compose")
            if isinstance(adapter.source, FileTensors):
                adapter.source.file.check_unchanged(adapter.source.header)

    def _make_windows(self, weights: list[P], budget: int) -> Iterator[Window[P]]:
        window: Window[P] = Window()
        for cluster in self._clusters(weights):
            factors = {factor: None for weight in cluster for factor in self._factors(weight)}
            nbytes = sum(self.adapters[adapter].source.nbytes[tensor] for adapter, tensor in factors)
            nbytes += sum(term.formula.scratch_nbytes for weight in cluster for term in weight.terms)
            if window.weights and window.nbytes + nbytes > budget:
                yield window
                window = Window()
            window.weights += cluster
            window.factors.update(factors)
            window.nbytes += nbytes
        if window.weights:
            yield window

    def _clusters(self, weights: list[P]) -> list[list[P]]:
        """Weights grouped so that no two groups need the same tensor; groups in order of their first weight."""
        needs = [self._factors(weight) for weight in weights]
        if len(set().union(*needs)) == sum(map(len, needs)):
            return [[weight] for weight in weights]
        cluster_of: dict[Factor, int] = {}
        clusters: list[list[P]] = []
        for weight, factors in zip(weights, needs, strict=True):
            joined = sorted({cluster_of[factor] for factor in factors if factor in cluster_of})
            home = joined[0] if joined else len(clusters)
            if not joined:
                clusters.append([])
            for other in joined[1:]:
                clusters[home] += clusters[other]
                clusters[other] = []
                cluster_of.update({factor: home for factor, at in cluster_of.items() if at == other})
            clusters[home].append(weight)
            cluster_of.update(dict.fromkeys(factors, home))
        return [cluster for cluster in clusters if cluster]

    def _factors(self, weight: Planned) -> set[Factor]:
        position = self._adapter_of
        return {(position[term.entry], tensor) for term in weight.terms for tensor in term.formula.tensors}
