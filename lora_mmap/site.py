"""What a transaction asks of the weights of one device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .base_checkpoint import BaseCheckpoint
from .factor_stream import Window
from .geometry import Geometry
from .held import Held


@dataclass(frozen=True, slots=True)
class Manner:
    """How a transaction works: who asked, threads on the CPU, whether GPUs may use their tensor cores, how weights are
    to be restored (a tier, ``auto`` or ``none``), whether factors stay in memory (``retain``), the checkpoint that the
    model may come from, and whether weights that somebody else wrote to are undone all the same."""

    function: str
    threads: int
    fast: bool = False
    restore: str = "auto"
    retain: str = "memory"
    base: BaseCheckpoint | None = None
    force: bool = False

    @property
    def keeps_factors(self) -> bool:
        """False where no undo needs them, and nobody wants them in memory."""
        return self.restore != "backup" or self.retain != "file"


class Site(ABC):
    """The weights of a transaction on one device. After an error of any method :meth:`roll_back` brings all of them
    back to what they were."""

    @property
    @abstractmethod
    def windows(self) -> list[Window[Any]]:
        """What is fused together."""

    @abstractmethod
    def check_unchanged(self) -> None:
        """Raises where a file that is read is not what it was."""

    @abstractmethod
    def fuse(self, window: Window[Any]) -> None:
        """Writes pristine + sum into the weights of a window, or has a GPU do it. Raises FusionOverflowError,
        ReadError, ModelError where somebody else wrote to a weight, MemoryError and what else may happen."""

    @abstractmethod
    def seal(self) -> None:
        """No window follows."""

    @abstractmethod
    def restore(self, undoable: bool) -> Iterator[None]:
        """Makes those weights pristine that only the previous composition had touched, some at a time. ``undoable``
        where :meth:`finish` may still fail."""

    @property
    @abstractmethod
    def is_asynchronous(self) -> bool:
        """True when :meth:`finish` may wait and may fail."""

    @abstractmethod
    def is_done(self) -> bool:
        """True when :meth:`finish` would not wait."""

    @abstractmethod
    def finish(self) -> list[Geometry]:
        """Waits until everything is done, and returns the weights that had to be written again. Raises
        FusionOverflowError."""

    @abstractmethod
    def roll_back(self) -> None:
        """Takes everything back."""

    @abstractmethod
    def kept(self) -> dict[int, Held]:
        """What the weights hold now, by address, and what undoes it."""

    @abstractmethod
    def settle(self) -> None:
        """Nothing will be taken back: lets go of what only that needs."""

    @property
    @abstractmethod
    def seconds(self) -> dict[str, float]:
        """Per stage."""

    @abstractmethod
    def memory(self) -> dict[str, int]:
        """Bytes that were needed, by kind."""


class SynchronousSite(Site):
    """One that has done everything when a call returns."""

    @property
    def is_asynchronous(self) -> bool:
        return False

    def is_done(self) -> bool:
        return True

    def finish(self) -> list[Geometry]:
        return []
