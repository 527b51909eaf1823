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
        spans: list[tuple[int, list[tuple[int, int]], list[tuple[int, int]]]] = []
        total = 0
        for adapter, tensors in by_adapter.items():
            source = self.adapters[adapter].source
            if isinstance(source, MemoryTensors):
                for tensor in tensors:
                    addresses[adapter, tensor] = source.addresses[tensor]
                continue
            ranges = sorted((source.offsets[tensor], tensor) for tensor in tensors)
            merged = self._coalesce(adapter, source, ranges)
            spans.append((adapter, ranges, merged))
            total += sum(-(-nbytes // 64) * 64 for _, nbytes in merged)
        if total > self._staging.nbytes:
            self._staging = _C.Memory(total, hugepages=True)
        self._read(spans, addresses)
        return addresses

    def check_unchanged(self) -> None:
        """Raises ReadError when a file is not the one that was opened any more."""
        for adapter in self.adapters:
            if isinstance(adapter.source, FileTensors):
                adapter.require_open("compose")
                adapter.source.file.check_unchanged()

    def _coalesce(self, adapter: int, source: FileTensors, ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
        wanted = self._wanted[adapter]
        last = ranges[-1]
        near = wanted[bisect_left(wanted, (ranges[0][0], 0)) : bisect_left(wanted, (last[0] + 1, 0))]
        mine = [(offset, source.nbytes[tensor]) for offset, tensor in ranges]
        return _C.coalesce(mine, near, MAX_GAP_NBYTES)

    def _read(
        self,
        spans: list[tuple[int, list[tuple[int, int]], list[tuple[int, int]]]],
        addresses: dict[Factor, int],
    ) -> None:
        requests = []
        address = self._staging.address
        for adapter, ranges, merged in spans:
            source = self.adapters[adapter].source
            assert isinstance(source, FileTensors)
            at = 0
            for begin, nbytes in merged:
                requests.append((source.file, begin, nbytes, address))
                while at < len(ranges) and ranges[at][0] < begin + nbytes:
                    offset, tensor = ranges[at]
                    addresses[adapter, tensor] = address + offset - begin
                    at += 1
                address += -(-nbytes // 64) * 64
        if requests:
            _C.read_ranges(requests, self._threads)

    def _wanted_ranges(self) -> list[list[tuple[int, int]]]:
        """Per adapter, the ranges somebody reads at some time: gaps that hold one are not read through."""
        wanted: list[list[tuple[int, int]]] = []
        needed: list[set[int]] = [set() for _ in self.adapters]
        for window in self.windows:
            for adapter, tensor in window.factors:
                needed[adapter].add(tensor)
        for position, adapter in enumerate(self.adapters):
            source = adapter.source
            if isinstance(source, MemoryTensors):
                wanted.append([])
                continue
            tensors = needed[position] | adapter.alphas().keys()
            wanted.append(sorted((source.offsets[tensor], source.nbytes[tensor]) for tensor in tensors))
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
