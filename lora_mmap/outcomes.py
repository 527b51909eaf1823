"""What becomes of the keys of an adapter in one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from .adapter import Adapter
from .algorithms.formula import Formula
from .terms import Cut, Range

APPLIED, ABSENT, UNSUPPORTED, IGNORED, UNKNOWN, SKIPPED = (
    "applied",
    "absent",
    "unsupported",
    "ignored",
    "unknown",
    "skipped",
)
MALFORMED, MISFIT, AMBIGUOUS = "malformed", "misfit", "ambiguous"

# The five outcomes of a key, by what became of its group.
KEY_OUTCOMES = {
    APPLIED: APPLIED,
    ABSENT: ABSENT,
    UNSUPPORTED: UNSUPPORTED,
    IGNORED: IGNORED,
    UNKNOWN: UNKNOWN,
    SKIPPED: IGNORED,
    MALFORMED: UNSUPPORTED,
    MISFIT: UNSUPPORTED,
    AMBIGUOUS: UNSUPPORTED,
}


class Landing(NamedTuple):
    """One module that (a section of) a group goes to. Ranges are None where it is all of it. ``factor_rows`` and
    ``factor_cols`` are those of the file's matrix; ``layout`` names the permutation, if there is one. ``parameter`` is
    the module's own that it is for."""

    module: str
    rows: Range | None = None
    cols: Range | None = None
    layout: str | None = None
    factor_rows: Range | None = None
    factor_cols: Range | None = None
    parameter: str = "weight"


class Outcome(NamedTuple):
    """What becomes of one group of an adapter's tensors. ``landings`` is filled unless its name alone says it.
    ``missing`` are those of its parameters that the module does not have, and what to say of them."""

    status: str
    reason: str = ""
    landings: tuple[Landing, ...] = ()
    missing: Mapping[str, str] = MappingProxyType({})


# The pair is the whole of the module that its name says.
DIRECT = Outcome(APPLIED)


@dataclass(slots=True)
class EntryPlan:
    """One (adapter, strength) of the composition, and the outcome of each of its groups.

    ``direct`` holds, per group, the module that the pair is the whole of, or -1; ``placed`` where the others land, and
    ``formulas``, by parameter, what those that are no plain pairs do there.
    """

    adapter: Adapter
    strength: float
    outcomes: list[Outcome]
    modules: list[str]  # the model's, by number
    direct: list[int] = field(default_factory=list)
    placed: dict[int, list[Cut]] = field(default_factory=dict)
    formulas: dict[int, Mapping[str, Formula]] = field(default_factory=dict)

    def landings(self, group: int) -> tuple[Landing, ...]:
        """Where the group goes, or would go if it were supported; empty where nobody knows."""
        if group < len(self.direct) and self.direct[group] >= 0:
            return (Landing(self.modules[self.direct[group]]),)
        return self.outcomes[group].landings

    def count(self, status: str) -> int:
        return sum(outcome.status == status for outcome in self.outcomes)
