"""What jobs point to besides weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

# A row map of a term or the column map of a weight.
IndexMap: TypeAlias = npt.NDArray[np.int32]


class Operands(ABC):
    """The tensors that the terms of some weights name, and memory for what is made of them. Addresses are those that
    the kernels of one device take."""

    @abstractmethod
    def address(self, entry: int, tensor: int) -> int:
        """Where a tensor of an entry's adapter lies."""

    @abstractmethod
    def dtype(self, entry: int, tensor: int) -> str:
        """Its element type."""

    @abstractmethod
    def index_map(self, rows_or_columns: IndexMap) -> int:
        """Where a map of rows or columns lies."""

    @abstractmethod
    def scratch(self, nbytes: int) -> int:
        """New memory of zeros, good as long as the factors."""
