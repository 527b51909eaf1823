"""What a composition will do, decided before the first byte of a weight changes.

Every key of every adapter gets an outcome; every weight gets its rows and the terms that fall on them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from .adapter import Adapter
from .errors import AdapterError, AmbiguousKeyError, UnmatchedKeysError
from .families.compiled import WHOLE, Placement
from .geometry import Geometry, Key, geometry_of, refusal, refuse_overlaps
from .model_index import ModelIndex
from .pairing import Pair, Unfit, pair_up

# |strength| below this leaves the adapter out, as upstream does.
NEGLIGIBLE = 1e-5

APPLIED, ABSENT, UNSUPPORTED, IGNORED, SKIPPED = "applied", "absent", "unsupported", "ignored", "skipped"
MALFORMED, MISFIT, AMBIGUOUS = "malformed", "misfit", "ambiguous"


class Term(NamedTuple):
    """One pair on ``rows`` of a weight, taking the up factor's rows from ``up_row`` on. ``scale`` holds everything
    but B and A: strength * alpha / rank."""

    entry: int
    pair: Pair
    scale: float
    rows: tuple[int, int]
    up_row: int


@dataclass(slots=True)
class WeightPlan:
    """One storage region and the terms that fall on it, in the order of the contract."""

    geometry: Geometry
    terms: list[Term] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    def bands(self) -> list[tuple[int, int, list[Term]]]:
        """Disjoint row ranges with the terms that cover each of them entirely; rows without a term are left out."""
        first = self.terms[0].rows
        if all(term.rows == first for term in self.terms):
            return [(*first, self.terms)]
        edges = sorted({edge for term in self.terms for edge in term.rows})
        bands = []
        for begin, end in pairwise(edges):
            covering = [term for term in self.terms if term.rows[0] <= begin and end <= term.rows[1]]
            if covering:
                bands.append((begin, end, covering))
        return bands


class Landing(NamedTuple):
    """One module that (some rows of) a pair goes to."""

    module: str
    rows: tuple[int, int] | None


class Outcome(NamedTuple):
    """What becomes of one group of an adapter's tensors."""

    status: str
    reason: str = ""
    landings: tuple[Landing, ...] = ()


@dataclass(slots=True)
class EntryPlan:
    """One (adapter, strength) of the composition, and the outcome of each of its groups."""

    adapter: Adapter
    strength: float
    outcomes: list[Outcome]

    def count(self, status: str) -> int:
        return sum(outcome.status == status for outcome in self.outcomes)


@dataclass(slots=True)
class Plan:
    """All entries with their outcomes, all weights with their terms."""

    entries: list[EntryPlan]
    weights: dict[Key, WeightPlan]

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


def make_plan(index: ModelIndex, entries: Sequence[tuple[Adapter, float]], component: str | None) -> Plan:
    """Resolves and validates all adapters against one model; touches no weight and reads no factor."""
    planner = _Planner(index, component)
    plans = [planner.add(position, adapter, strength) for position, (adapter, strength) in enumerate(entries)]
    refuse_overlaps([weight.geometry for weight in planner.weights.values()])
    return Plan(plans, planner.weights)


class _Planner:
    def __init__(self, index: ModelIndex, component: str | None) -> None:
        self.index = index
        self.component = component
        self.weights: dict[Key, WeightPlan] = {}
        self._geometries: dict[int, Geometry | str] = {}
        self._plans: dict[int, WeightPlan] = {}

    def add(self, position: int, adapter: Adapter, strength: float) -> EntryPlan:
        if abs(strength) < NEGLIGIBLE:
            skipped = Outcome(SKIPPED, f"strength {strength:g} is negligible")
            return EntryPlan(adapter, strength, [skipped] * len(adapter.groups))
        pairs = pair_up(adapter)
        resolutions = adapter.classification.resolve(self.index.names)
        foreign = self._foreign_groups(adapter, pairs, resolutions)
        outcomes = []
        for group, (pair, resolution) in enumerate(zip(pairs, resolutions, strict=True)):
            if group in foreign:
                outcomes.append(Outcome(ABSENT, foreign[group]))
            else:
                outcomes.append(self._place(position, adapter, strength, pair, resolution))
        return EntryPlan(adapter, strength, outcomes)

    def _place(
        self,
        position: int,
        adapter: Adapter,
        strength: float,
        pair: Pair | Unfit,
        resolution: tuple[int, int, int, int, tuple[int, ...]],
    ) -> Outcome:
        found, _, rule, alternative, modules = resolution
        if type(pair) is Unfit:
            return Outcome(pair.kind, pair.reason)
        assert type(pair) is Pair
        if found == 1:
            return Outcome(ABSENT, "no module of the model has this name")
        if found == 2:
            names = ", ".join(f"'{self.index.weights[module].name}'" for module in modules)
            return Outcome(AMBIGUOUS, f"it fits several modules: {names}")
        placements = (WHOLE,) if rule < 0 else adapter.tables.rules[rule].alternatives[alternative].placements
        landings, terms = [], []
        for module, placement in zip(modules, placements, strict=True):
            geometry = self._geometry(module)
            if isinstance(geometry, str):
                return Outcome(UNSUPPORTED, f"module '{self.index.weights[module].name}': {geometry}")
            cut = _cut(pair, placement, geometry)
            if cut is None:
                return Outcome(MISFIT, _misfit(adapter, pair, placement, geometry, self.index.weights[module].name))
            rows, up_row = cut
            terms.append((module, Term(position, pair, strength * pair.scale, rows, up_row)))
            whole = rows == (0, geometry.rows)
            landings.append(Landing(self.index.weights[module].name, None if whole else rows))
        for module, term in terms:
            self._weight(module).terms.append(term)
        return Outcome(APPLIED, "", tuple(landings))

    def _geometry(self, module: int) -> Geometry | str:
        known = self._geometries.get(module)
        if known is None:
            entry = self.index.weights[module]
            known = self._geometries[module] = refusal(entry) or geometry_of(entry)
        return known

    def _weight(self, module: int) -> WeightPlan:
        plan = self._plans.get(module)
        if plan is None:
            geometry = self._geometries[module]
            assert isinstance(geometry, Geometry)
            plan = self.weights.get(geometry.key)
            if plan is None:
                plan = self.weights[geometry.key] = WeightPlan(geometry)
            plan.names.add(self.index.weights[module].name)
            self._plans[module] = plan
        return plan

    def _foreign_groups(
        self,
        adapter: Adapter,
        pairs: Sequence[Pair | Unfit],
        resolutions: Sequence[tuple[int, int, int, int, tuple[int, ...]]],
    ) -> dict[int, str]:
        """Groups whose prefix names another pipeline component than the one this model is.

        Text encoders share module names: which of them a bare model is follows from ``component=`` or from the shapes.
        """
        if self.component is None and not adapter.mixes_components:
            return {}
        components = adapter.group_components
        here = self.component or self._component_by_shape(components, pairs, resolutions)
        if here is None:
            return {}
        return {
            group: f"it belongs to {component}, this model is {here}"
            for group, component in enumerate(components)
            if component not in (None, here)
        }

    def _component_by_shape(
        self,
        components: Sequence[str | None],
        pairs: Sequence[Pair | Unfit],
        resolutions: Sequence[tuple[int, int, int, int, tuple[int, ...]]],
    ) -> str | None:
        hits: Counter[str] = Counter()
        misfits: Counter[str] = Counter()
        for component, pair, (found, _, rule, _, modules) in zip(components, pairs, resolutions, strict=True):
            if component is None or found != 0 or rule >= 0 or type(pair) is not Pair:
                continue
            geometry = self._geometry(modules[0])
            if isinstance(geometry, Geometry):
                hits[component] += 1
                misfits[component] += (pair.rows, pair.cols) != (geometry.rows, geometry.cols)
        if len(hits) < 2:
            return next(iter(hits), None)
        fitting = [component for component in hits if not misfits[component]]
        if len(fitting) != 1:
            raise AmbiguousKeyError(
                f"[compose] the adapter has keys for {', '.join(sorted(hits))} and the model could be "
                f"{'any' if fitting else 'none'} of them by its shapes: say which with component="
            )
        return fitting[0]


def _cut(pair: Pair, placement: Placement, geometry: Geometry) -> tuple[tuple[int, int], int] | None:
    """(rows of the weight, first row of the up factor), or None where the shapes do not fit."""
    if pair.cols != geometry.cols:
        return None
    if placement.side == "whole":
        return ((0, geometry.rows), 0) if pair.rows == geometry.rows else None
    rows = placement.rows(geometry.rows if placement.side == "target" else pair.rows)
    if rows is None:
        return None
    if placement.side == "target":
        return (rows, 0) if rows[1] - rows[0] == pair.rows else None
    return ((0, geometry.rows), rows[0]) if rows[1] - rows[0] == geometry.rows else None


def _misfit(adapter: Adapter, pair: Pair, placement: Placement, geometry: Geometry, module: str) -> str:
    names, shapes = adapter.source.names, adapter.source.shapes
    where = {"whole": "", "target": f", part {placement.part} of {len(placement.sizes)} of its rows"}
    part = where.get(placement.side, f", from part {placement.part} of {len(placement.sizes)} of the rows")
    return (
        f"'{names[pair.up]}' {list(shapes[pair.up])} x '{names[pair.down]}' {list(shapes[pair.down])} make "
        f"[{pair.rows}, {pair.cols}], expected [{geometry.rows}, {geometry.cols}] as module '{module}' has{part}; "
        "is the adapter made for another model?"
    )
