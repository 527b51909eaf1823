"""The stream of factors for weights on the CPU."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from .factor_reading import FactorReading
from .factor_store import FactorStore
from .factor_stream import FactorStream, P, Window
from .host_operands import HostScratch
from .lowering.operands import IndexMap
from .outcomes import EntryPlan

# Factors in flight. Larger windows cost memory, smaller ones leave the workers waiting at their ends.
WINDOW_NBYTES = 8 << 20


class HostStream(FactorStream[P]):
    """Everything is done when a call returns. With ``keeps`` the factors of every window stay in the store."""

    def __init__(
        self,
        entries: Sequence[EntryPlan],
        weights: Iterable[P],
        threads: int,
        store: FactorStore,
        keeps: bool,
    ) -> None:
        super().__init__(entries, weights, WINDOW_NBYTES, store)
        self._reading = FactorReading(self.adapters, self.all_factors(), store, threads, keeps)
        self._made = HostScratch()

    @property
    def memory(self) -> dict[str, int]:
        return {"staging": self._reading.staging_nbytes + self._made.most_nbytes}

    def load(self, window: Window[P]) -> None:
        self._made.let_go()
        with self.stage("read"):
            self._reading.read(window.factors)
        self._addresses = self.in_store(window.factors)

    def index_map(self, rows_or_columns: IndexMap) -> int:
        return self._made.index_map(rows_or_columns)

    def scratch(self, nbytes: int) -> int:
        return self._made.zeros(nbytes)

    def seal(self) -> None:
        self._made.let_go()
        self._reading.close()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin
