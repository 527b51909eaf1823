"""One module's branch and the terms that go into it: which ranks each of them gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..algorithms.formula import Formula
from ..errors import ArgumentError, ModelError
from ..outcomes import EntryPlan
from ..pairing import Pair
from ..terms import Cut, Planned, Range
from . import awq
from .branch_place import SVDQUANT, BranchPlace
from .exact_rank import exact_rank, ranks
from .svdquant import RANK_ADVISED


@dataclass(frozen=True, slots=True)
class Wishes:
    """What whoever composes wants of branches: AWQ's modulation layers changed too, and terms of more than
    ``svd_rank`` ranks cut down to these (0: none)."""

    modulation: bool = False
    svd_rank: int = 0


# Nothing asked for.
NO_WISHES = Wishes()


def wishes_of(function: str, apply_awq_mod: object = "auto", svd_rank: int = 0) -> Wishes:
    """From arguments, which ``auto`` leaves to the environment. Raises ArgumentError."""
    if type(svd_rank) is not int or svd_rank < 0:
        raise ArgumentError(f"[{function}] svd_rank is {svd_rank!r}, expected a number of ranks, or 0 to cut nothing")
    return Wishes(awq.wants_modulation(function, apply_awq_mod), svd_rank)


@dataclass(slots=True)
class Span:
    """Ranks from ``first`` on: one product of factors, on the rows of ``cuts``, which all have the same columns."""

    entry: int
    formula: Pair | Formula
    scale: float  # the user's strength times the file's own
    first: int
    rank: int
    is_cut: bool  # it would need more ranks than it gets
    cuts: list[Cut] = field(default_factory=list)

    @property
    def cols(self) -> Range:
        return self.cuts[0].cols

    @property
    def down_col(self) -> int:
        return self.cuts[0].down_col

    @property
    def is_plain(self) -> bool:
        """True where two tensors of the file are the factors."""
        if self.is_cut or isinstance(self.formula, Pair):
            return not self.is_cut
        matrix = self.formula.matrix
        return self.formula.times is None and matrix.up is not None and not self.formula.cores


class BranchPlan(Planned):
    """A place beside a module's weight, and the terms that fall there in the order of the contract."""

    __slots__ = ("geometry", "needed", "spans")

    def __init__(self, place: BranchPlace) -> None:
        super().__init__()
        self.geometry = place
        self.spans: list[Span] = []
        self.needed = 0  # ranks

    def lay_out(self, entries: Sequence[EntryPlan], svd_rank: int) -> None:
        """Gives every term its ranks. Those of each adapter begin at a multiple of the branch's step; the parts of one
        product that fall on several runs of rows share their ranks."""
        step = self.geometry.branch.step
        known: dict[tuple[object, ...], Span] = {}
        entry = -1
        for term in self.terms:
            if term.entry != entry:
                entry, self.needed = term.entry, -(-self.needed // step) * step
            key = (term.entry, id(term.formula), term.cut.cols, term.cut.down_col)
            span = known.get(key)
            if span is None:
                shapes = entries[term.entry].adapter.source.shapes
                rank = ranks(term.formula, shapes, svd_rank)
                is_cut = rank < exact_rank(term.formula, shapes)
                scale = term.strength * term.formula.scale
                span = known[key] = Span(term.entry, term.formula, scale, self.needed, rank, is_cut)
                self.spans.append(span)
                self.needed += rank
            span.cuts.append(term.cut)
        self.needed = -(-self.needed // step) * step

    def require_room(self, function: str, entries: Sequence[EntryPlan]) -> None:
        """Raises ModelError where the kernels that compute the branch take fewer ranks."""
        place, branch = self.geometry, self.geometry.branch
        total = branch.base_rank + self.needed
        if total <= branch.limit:
            return
        by_entry: dict[int, int] = {}
        for span in self.spans:
            by_entry[span.entry] = by_entry.get(span.entry, 0) + span.rank
        listed = ", ".join(f"{rank} of {entries[entry].adapter.label}" for entry, rank in by_entry.items())
        raise ModelError(
            f"[{function}] module '{place.name}' would have {total} ranks, {branch.base_rank} of its own and "
            f"{listed}; expected at most {branch.limit}: compose fewer adapters, or cut them down with svd_rank="
        )

    @property
    def names(self) -> tuple[str, ...]:
        """All that terms call the module by."""
        return tuple(dict.fromkeys(term.cut.geometry.name for term in self.terms))

    def describe(self) -> dict[str, Any]:
        """For the report."""
        return {"target": self.geometry.kind, "base_rank": self.geometry.branch.base_rank, "rank": self.needed}

    @property
    def costly_rank(self) -> int:
        """All ranks of a branch that costs more than what the quantised weight saves; 0 for others."""
        total = self.geometry.branch.base_rank + self.needed
        return total if self.geometry.kind == SVDQUANT and total > RANK_ADVISED else 0
