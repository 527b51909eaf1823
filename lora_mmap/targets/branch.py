"""The low-rank branch of one module: ``up @ (down @ x)`` beside what its weight gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import nn

# Where a module keeps how many ranks of its branch are not ours. Plain data: it means something in a copy, too.
BASE_RANK = "_lora_mmap_base_rank"

Layout = Literal["down", "up", "plain"]


class Extent(NamedTuple):
    """Some ranks of a stored factor: rows of so many elements that lie together, in elements from its first."""

    begin: int
    rows: int
    cols: int
    row_stride: int

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """A view of them."""
        first = tensor.storage_offset() + self.begin
        return tensor.as_strided((self.rows, self.cols), (self.row_stride, 1), first)


class Factors(NamedTuple):
    """``down`` and ``up`` as a branch stores them, dense."""

    down: torch.Tensor
    up: torch.Tensor


class Branch(ABC):
    """``down`` [rank, in] and ``up`` [out, rank], each in one tensor, whose first ranks may be the module's own.

    ``layouts`` are the native core's names of how the two are stored; ranks come in multiples of ``step``, and at most
    ``limit`` of them.
    """

    layouts: ClassVar[tuple[Layout, Layout]]
    step: ClassVar[int]
    limit: ClassVar[int]

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Of both factors."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where they are; ``meta`` where they are nowhere."""

    @abstractmethod
    def factors(self) -> Factors:
        """What the module computes with."""

    def writable_factors(self) -> Factors:
        """The same, in memory that stays what the module computes with."""
        return self.factors()

    @abstractmethod
    def put(self, factors: Factors) -> None:
        """Has it compute with these."""

    @abstractmethod
    def empty(self, like: torch.Tensor, ranks: int) -> torch.Tensor:
        """A factor of so many ranks for the features of another. Raises MemoryError, or torch's own error of a device
        without room."""

    @staticmethod
    @abstractmethod
    def extent(factor: torch.Tensor, begin: int, end: int) -> Extent:
        """The ranks from ``begin`` to ``end`` of a stored factor."""

    @staticmethod
    @abstractmethod
    def ranks_in(factor: torch.Tensor) -> int:
        """How many ranks a stored factor has."""

    @property
    def ranks(self) -> int:
        """How many there are."""
        return self.ranks_in(self.factors().down)

    @property
    def base_rank(self) -> int:
        """Ranks that are not ours: all of them, unless some were added."""
        base = self.module.__dict__.get(BASE_RANK)
        return self.ranks if base is None else int(base)

    def mark(self, base: int) -> None:
        """Notes that the ranks after the first ``base`` are ours."""
        self.module.__dict__[BASE_RANK] = base

    def unmark(self) -> None:
        """All ranks are the module's own from now on."""
        self.module.__dict__.pop(BASE_RANK, None)


def is_marked(module: nn.Module) -> bool:
    """True where some ranks of a module's branch are ours, or its original's."""
    return BASE_RANK in module.__dict__
