"""The stream: which factors are read together, where they lie in the small staging buffer, and reading them.

A window is a run of weights whose factors fit the budget together. Weights that share a tensor share a window, so every
byte of a file is read once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from . import _C
from .adapter import Adapter
from .plan import EntryPlan, Term, WeightPlan
from .tensor_source import FileTensors, MemoryTensors

# Factors in flight. Larger windows cost memory, smaller ones leave the workers waiting at their ends.
WINDOW_NBYTES = 8 << 20
# A gap up to this many unneeded bytes is read through rather than around.
MAX_GAP_NBYTES = 64 << 10
# Where spans begin in the staging buffer: a cache line.
ALIGNMENT = 64

# One tensor of the composition: (position in the list of distinct adapters, tensor index).
Factor = tuple[int, int]


@dataclass(slots=True)
class Window:
    """Weights fused together, and the factors they need."""

    weights: list[WeightPlan] = field(default_factory=list)
    factors: dict[Factor, None] = field(default_factory=dict)
    nbytes: int = 0


class FactorStream:
    """Reads the factors of a plan window by window. Not thread-safe; frees its buffer when dropped."""

    def __init__(self, entries: Sequence[EntryPlan], weights: Iterable[WeightPlan], threads: int) -> None:
        self.adapters: list[Adapter] = list({id(entry.adapter): entry.adapter for entry in entries}.values())
        position = {id(adapter): i for i, adapter in enumerate(self.adapters)}
        self._adapter_of = [position[id(entry.adapter)] for entry in entries]
        self._threads = threads
        self._staging = _C.Memory(0)
        self.windows = self._make_windows(list(weights))
        self._wanted = self._wanted_ranges()

    @property
    def staging_nbytes(self) -> int:
        return self._staging.nbytes

    def factor(self, entry: int, tensor: int) -> Factor:
        return self._adapter_of[entry], tensor

    def load(self, window: Window) -> dict[Factor, int]:
        """Reads what the window needs. Returns the address of each factor, valid until the next call."""
        addresses: dict[Factor, int] = {}
        by_adapter: dict[int, list[int]] = {}
        for adapter, tensor in window.factors:
            by_adapter.setdefault(adapter, []).append(tensor)
        parts: list[tuple[FileTensors, list[tuple[int, int, int]], int]] = []
        places: list[tuple[Factor, int]] = []
        total = 0
        for adapter, tensors in by_adapter.items():
            source = self.adapters[adapter].source
            if isinstance(source, MemoryTensors):
                addresses.update(((adapter, tensor), source.addresses[tensor]) for tensor in tensors)
                continue
            spans, positions, nbytes = self._plan_staging(adapter, source, tensors)
            parts.append((source, spans, total))
            places += [((adapter, tensor), total + at) for tensor, at in zip(tensors, positions, strict=True)]
            total += -(-nbytes // ALIGNMENT) * ALIGNMENT
        if total > self._staging.nbytes:
            self._staging = _C.Memory(total, hugepages=True)
        base = self._staging.address
        requests = [
            (source.file, source.header, offset, nbytes, base + begin + at)
            for source, spans, begin in parts
            for offset, nbytes, at in spans
        ]
        _C.read_ranges(requests, self._threads)
        addresses.update((factor, base + at) for factor, at in places)
        return addresses

    def check_unchanged(self) -> None:
        """Raises ReadError when a file is not the one that was opened any more, ClosedError for a closed adapter."""
        for adapter in self.adapters:
            adapter.require_open("compose")
            if isinstance(adapter.source, FileTensors):
                adapter.source.file.check_unchanged(adapter.source.header)

    def _plan_staging(
        self, adapter: int, source: FileTensors, tensors: list[int]
    ) -> tuple[list[tuple[int, int, int]], list[int], int]:
        ranges = [(source.offsets[tensor], source.nbytes[tensor]) for tensor in tensors]
        wanted = self._wanted[adapter]
        near = wanted[bisect_left(wanted, min(ranges)) : bisect_left(wanted, max(ranges))]
        return _C.plan_staging(ranges, near, MAX_GAP_NBYTES, ALIGNMENT)

    def _wanted_ranges(self) -> list[list[tuple[int, int]]]:
        """Per adapter, the ranges somebody reads at some time: gaps that hold one are not read through."""
        needed: list[set[int]] = [set(adapter.alphas()) for adapter in self.adapters]
        for window in self.windows:
            for adapter, tensor in window.factors:
                needed[adapter].add(tensor)
        wanted: list[list[tuple[int, int]]] = []
        for opened, tensors in zip(self.adapters, needed, strict=True):
            source = opened.source
            wanted.append([])
            if isinstance(source, FileTensors):
                wanted[-1] = sorted((source.offsets[tensor], source.nbytes[tensor]) for tensor in tensors)
        return wanted

    def _make_windows(self, weights: list[WeightPlan]) -> list[Window]:
        windows: list[Window] = []
        for cluster in self._clusters(weights):
            factors = {self.factor(term.entry, t): None for w in cluster for term in w.terms for t in _tensors(term)}
            nbytes = sum(self.adapters[adapter].source.nbytes[tensor] for adapter, tensor in factors)
            if not windows or windows[-1].nbytes + nbytes > WINDOW_NBYTES:
                windows.append(Window())
            windows[-1].weights += cluster
            windows[-1].factors.update(factors)
            windows[-1].nbytes += nbytes
        return windows

    def _clusters(self, weights: list[WeightPlan]) -> list[list[WeightPlan]]:
        """Weights grouped so that no two groups need the same tensor; groups in order of their first weight."""
        cluster_of: dict[Factor, int] = {}
        clusters: list[list[WeightPlan]] = []
        for weight in weights:
            factors = {self.factor(term.entry, tensor) for term in weight.terms for tensor in _tensors(term)}
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


def _tensors(term: Term) -> tuple[int, int]:
    return term.pair.down, term.pair.up
