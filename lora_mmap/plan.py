"""What a composition will do, decided before the first byte of a weight changes.

Every key of every adapter gets an outcome; every weight gets its rows and the terms that fall on them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from . import native_types
from .adapter import Adapter
from .errors import AdapterError, AmbiguousKeyError, ModelError, UnmatchedKeysError
from .geometry import Geometry, overlap
from .model_weights import ModelWeights
from .pairing import Pair, pair_up
from .sharing import lazy

# |strength| below this leaves the adapter out, as upstream does.
NEGLIGIBLE = 1e-5

APPLIED, ABSENT, UNSUPPORTED, IGNORED, SKIPPED = "applied", "absent", "unsupported", "ignored", "skipped"
MALFORMED, MISFIT, AMBIGUOUS = "malformed", "misfit", "ambiguous"


class Term(NamedTuple):
    """One pair on rows ``begin`` to ``end`` of a weight, taking the up factor's rows from ``up_row`` on. ``scale``
    holds everything but B and A: strength * alpha / rank."""

    entry: int
    pair: Pair
    scale: float
    begin: int
    end: int
    up_row: int


class WeightPlan:
    """One storage region and the terms that fall on it, in the order of the contract."""

    __slots__ = ("geometry", "terms")

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        self.terms: list[Term] = []

    def bands(self) -> list[tuple[int, int, list[Term]]]:
        """Disjoint row ranges with the terms that cover each of them entirely; rows without a term are left out."""
        begin, end = self.terms[0].begin, self.terms[0].end
        if all(term.begin == begin and term.end == end for term in self.terms):
            return [(begin, end, self.terms)]
        bands = []
        for begin, end in pairwise(sorted({edge for term in self.terms for edge in (term.begin, term.end)})):
            covering = [term for term in self.terms if term.begin <= begin and end <= term.end]
            if covering:
                bands.append((begin, end, covering))
        return bands


class Cut(NamedTuple):
    """Rows ``begin`` to ``end`` of a weight, which take the up factor's rows from ``up_row`` on."""

    geometry: Geometry
    begin: int
    end: int
    up_row: int


class Landing(NamedTuple):
    """One module that (some rows of) a pair goes to."""

    module: str
    rows: tuple[int, int] | None


class Outcome(NamedTuple):
    """What becomes of one group of an adapter's tensors. ``landings`` is filled where a family rule placed it."""

    status: str
    reason: str = ""
    landings: tuple[Landing, ...] = ()


# The pair is the whole of the module that its name says.
DIRECT = Outcome(APPLIED)
# How the native core answers: the module that has the name itself, or (outcome, start, rule, alternative, modules).
Resolution = int | native_types.Resolution


@dataclass(slots=True)
class EntryPlan:
    """One (adapter, strength) of the composition, and the outcome of each of its groups.

    ``direct`` holds, per group, the module that the pair is the whole of, or -1; ``placed`` where the others land.
    """

    adapter: Adapter
    strength: float
    outcomes: list[Outcome]
    modules: list[str]  # the model's, by number
    direct: list[int] = field(default_factory=list)
    placed: dict[int, list[Cut]] = field(default_factory=dict)

    def landings(self, group: int) -> tuple[Landing, ...]:
        """Where the group's pair goes; empty unless it is applied."""
        if group < len(self.direct) and self.direct[group] >= 0:
            return (Landing(self.modules[self.direct[group]], None),)
        return self.outcomes[group].landings

    def count(self, status: str) -> int:
        return sum(outcome.status == status for outcome in self.outcomes)


class Plan:
    """All entries with their outcomes; ``weights``, by address, are put together when somebody needs them."""

    def __init__(self, entries: list[EntryPlan], model: ModelWeights) -> None:
        self.entries = entries
        self._model: ModelWeights | None = model
        if model.has_overlaps:
            _ = self.weights  # raises where the adapters meet an overlap

    @lazy
    def weights(self) -> dict[int, WeightPlan]:
        """The weights that terms fall on. Raises ModelError where two of them share bytes in different forms."""
        assert self._model is not None
        weights: dict[int, WeightPlan] = {}
        for position, entry in enumerate(self.entries):
            pairs = pair_up(entry.adapter) if entry.direct else []
            for group, module in enumerate(entry.direct):
                pair = pairs[group]
                if module >= 0:
                    geometry = self._model.look(module)
                    assert isinstance(geometry, Geometry)
                    cuts = [Cut(geometry, 0, geometry.rows, 0)]
                else:
                    cuts = entry.placed.get(group, [])
                if not isinstance(pair, Pair) or pair.scale == 0:
                    continue
                for cut in cuts:
                    if not cut.geometry.within_reach:  # only a dry run plans there
                        continue
                    weight = weights.get(cut.geometry.address)
                    if weight is None or weight.geometry is not cut.geometry:
                        weight = _weight_at(weights, cut.geometry)
                    weight.terms.append(
                        Term(position, pair, entry.strength * pair.scale, cut.begin, cut.end, cut.up_row)
                    )
        crossing = overlap(weight.geometry for weight in weights.values())
        if crossing:
            raise ModelError(
                f"[compose] weights '{crossing[0].name}.weight' and '{crossing[1].name}.weight' overlap in memory "
                "without being the same region, expected separate or fully tied weights"
            )
        return weights

    def forget_weights(self) -> None:
        """Lets go of the model's weights; the outcomes stay, for the report."""
        self._model = None
        self.__dict__.pop("weights", None)
        for entry in self.entries:
            entry.placed.clear()

    def raise_if_unfit(self, strict: bool) -> None:
        """Raises for what makes an adapter unusable; with ``strict`` also for anything that would not be applied."""
        for entry in self.entries:
            for status, error in ((AMBIGUOUS, AmbiguousKeyError), (MALFORMED, AdapterError), (MISFIT, AdapterError)):
                _raise_first(entry, (status,), error)
        if strict:
            for entry in self.entries:
                _raise_first(entry, (ABSENT, UNSUPPORTED), UnmatchedKeysError)
                if unknown := entry.adapter.classification.unknown:
                    names = entry.adapter.source.names
                    raise UnmatchedKeysError(
                        f"[compose] {entry.adapter.label}: {len(unknown)} keys end in no known suffix, the first is "
                        f"'{names[unknown[0]]}' (strict=True)"
                    )


def _raise_first(entry: EntryPlan, statuses: tuple[str, ...], error: type[AdapterError]) -> None:
    hits = [(i, outcome) for i, outcome in enumerate(entry.outcomes) if outcome.status in statuses]
    if hits:
        index, outcome = hits[0]
        more = f" (and {len(hits) - 1} more of {len(entry.outcomes)} modules)" if len(hits) > 1 else ""
        stem = entry.adapter.groups[index].stem
        raise error(f"[compose] {entry.adapter.label}: '{stem}' is {outcome.status}: {outcome.reason}{more}")


def _weight_at(weights: dict[int, WeightPlan], geometry: Geometry) -> WeightPlan:
    plan = weights.get(geometry.address)
    if plan is None:
        plan = weights[geometry.address] = WeightPlan(geometry)
    elif not plan.geometry.same_form(geometry):
        raise ModelError(
            f"[compose] weights '{plan.geometry.name}.weight' and '{geometry.name}.weight' begin at the same "
            "address with different shapes, strides or dtypes, expected separate or fully tied weights"
        )
    return plan
