"""The low-rank branch of one module: ``up @ (down @ x)`` beside what its weight gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import nn

# Where a module keeps how many ranks of its branch are not ours. Plain data: it means something in a copy, too.
BASE_RANK = "_lora_mmap_base_rank"


Layout = Literal["down", "up", "plain"]


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
    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """``down`` and ``up`` as they are stored."""

    @abstractmethod
    def put(self, down: torch.Tensor, up: torch.Tensor) -> None:
        """Takes these in their place."""

    @abstractmethod
    def empty(self, like: torch.Tensor, ranks: int) -> torch.Tensor:
        """A tensor of so many ranks for the features of another."""

    @staticmethod
    @abstractmethod
    def part(tensor: torch.Tensor, begin: int, end: int) -> torch.Tensor:
        """The ranks from ``begin`` to ``end`` of a stored tensor: a view with two dimensions, the last one dense."""

    @property
    @abstractmethod
    def ranks(self) -> int:
        """How many there are."""

    @property
    def base_rank(self) -> int:
        """Ranks that are not ours: all of them, unless some were added."""
        return int(self.module.__dict__.get(BASE_RANK, self.ranks))

    def tails(self, base: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The ranks after the first ``base`` of both."""
        down, up = self.tensors()
        return self.part(down, base, self.ranks), self.part(up, base, self.ranks)

    def resize(self, base: int, ranks: int) -> None:
        """Keeps the first ``base`` ranks in new tensors of so many, the others zero. Raises MemoryError or torch's own
        error of a device without room, and changes nothing then."""
        resized = []
        with torch.inference_mode(False):  # what is made inside could not be written to outside
            for old in self.tensors():
                new = self.empty(old, ranks)
                self.part(new, 0, base).copy_(self.part(old, 0, base))
                self.part(new, base, ranks).zero_()
                resized.append(new)
        self.put(*resized)

    def mark(self, base: int) -> None:
        """Notes that the ranks after the first ``base`` are ours."""
        self.module.__dict__[BASE_RANK] = base

    def unmark(self) -> None:
        """All ranks are the module's own from now on."""
        self.module.__dict__.pop(BASE_RANK, None)


def is_marked(module: nn.Module) -> bool:
    """True where some ranks of a module's branch are ours, or its original's."""
    return BASE_RANK in module.__dict__
