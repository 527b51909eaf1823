"""What jobs for weights on the CPU point to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .adapter import Adapter
from .factor_store import FactorStore
from .lowering.operands import IndexMap, Operands


class HostScratch:
    """Index maps and memory of zeros, held for as long as jobs point to them."""

    def __init__(self) -> None:
        self._maps: dict[int, IndexMap] = {}
        self._memory: list[npt.NDArray[np.uint8]] = []
        self.nbytes = 0
        self.most_nbytes = 0

    def index_map(self, rows_or_columns: IndexMap) -> int:
        self._maps[id(rows_or_columns)] = rows_or_columns
        return rows_or_columns.ctypes.data

    def zeros(self, nbytes: int) -> int:
        memory = np.zeros(max(nbytes, 1), np.uint8)
        self._memory.append(memory)
        self.nbytes += memory.nbytes
        self.most_nbytes = max(self.most_nbytes, self.nbytes)
        return memory.ctypes.data

    def let_go(self) -> None:
        self._maps.clear()
        self._memory.clear()
        self.nbytes = 0


class KeptFactors(Operands):
    """The factors of a composition that was fused before, out of its store. ``adapters`` are those of its entries."""

    def __init__(self, adapters: Sequence[Adapter], store: FactorStore) -> None:
        self._adapters = adapters
        self._store = store
        self._scratch = HostScratch()

    def address(self, entry: int, tensor: int) -> int:
        address = self._store.address(self._adapters[entry], tensor)
        assert address is not None  # nothing is undone before everything was recalled
        return address

    def dtype(self, entry: int, tensor: int) -> str:
        return self._adapters[entry].source.dtypes[tensor]

    def index_map(self, rows_or_columns: IndexMap) -> int:
        return self._scratch.index_map(rows_or_columns)

    def scratch(self, nbytes: int) -> int:
        return self._scratch.zeros(nbytes)

    def let_go(self) -> None:
        """Of what the jobs of the last weights pointed to."""
        self._scratch.let_go()
