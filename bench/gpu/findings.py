"""What a run on a GPU writes down. A step that fails is written down too, and the next one begins."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from ..results import CaseResult, Goal
from ..timing import progress

_LONGEST = 240


class Budget:
    """Seconds for a part of a run, from now on."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def part(self, seconds: float) -> Budget:
        """At most ``seconds`` of what is left."""
        return Budget(min(seconds, self.left))


class Findings:
    """The case's result, and the short table at its end."""

    def __init__(self, result: CaseResult) -> None:
        self.result = result

    def line(self, what: str, figure: str) -> None:
        """One line of the short table."""
        self.result.summary.append((_plain(what), _plain(figure)))
        progress(f"    {what}: {figure}")  # a run that is cut short has said what it found

    def goal(self, statement: str, measured: str, passed: bool) -> None:
        self.result.goals.append(Goal(_plain(statement), _plain(measured), passed))
        progress(f"    {'pass' if passed else 'FAIL'}  {statement}: {measured}")

    def add_goal(self, goal: Goal | None) -> None:
        """A verdict that somebody else gave, if there is one."""
        if goal is not None:
            self.goal(goal.statement, goal.measured, goal.passed)

    def failed(self, what: str, why: str) -> None:
        """A step that gave no figure: in both tables."""
        self.goal(what, f"failed: {why}", False)
        self.line(what, f"failed: {why}")

    def left_out(self, what: str, why: str) -> None:
        self.result.left_out.append(f"{what}: {why}")

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Runs the block; an exception becomes a line that says so."""
        progress(f"  {what}")
        try:
            yield
        except Exception as error:
            self.failed(what, reason(error))


def reason(error: BaseException) -> str:
    """An error in one line of a table. Its traceback goes to stderr."""
    progress("".join(traceback.format_exception(error)))
    first = str(error).strip().partition("\n")[0]
    return _plain(f"{type(error).__name__}: {first}" if first else type(error).__name__)[:_LONGEST]


def _plain(text: str) -> str:
    """Fit for a cell of a Markdown table."""
    return " ".join(text.replace("|", "/").split())
