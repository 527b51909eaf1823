"""The cases by name. A case is a function from settings to a result; a new one is a module in ``bench/cases``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .results import CaseResult


@dataclass(frozen=True)
class Settings:
    """How a run was asked for. ``scratch``: a folder for files, gone after the run."""

    quick: bool
    repeats: int | None
    warm_allocator: bool
    scratch: Path

    def rounds(self, full: int, quick: int) -> int:
        """Repetitions: what the user said, or the case's own number."""
        return self.repeats or (quick if self.quick else full)


Run = Callable[[Settings], CaseResult]
CASES: dict[str, Run] = {}
_BELONGS: dict[str, Callable[[], bool]] = {}


def case(name: str, belongs: Callable[[], bool] = lambda: True) -> Callable[[Run], Run]:
    """Registers a case. Order of registration is the order of a whole run, of which it is where it ``belongs``; by its
    name it runs everywhere, and says what it cannot measure."""

    def register(run: Run) -> Run:
        CASES[name] = run
        _BELONGS[name] = belongs
        return run

    return register


def of_a_whole_run() -> list[str]:
    """The cases to run on this machine when none is named."""
    return [name for name in CASES if _BELONGS[name]()]
