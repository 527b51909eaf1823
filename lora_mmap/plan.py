"""What a composition will do, decided before the first byte of a weight changes.

Every key of every adapter gets an outcome; every weight gets its rows and the terms that fall on them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from . import native_types
from .adapter import Adapter
from .errors import AdapterError, AmbiguousKeyError, ModelError, UnmatchedKeysError
from .families.compiled import WHOLE, Placement
from .geometry import Geometry, refuse_overlaps
from .model_index import ModelIndex
from .model_weights import ModelWeights
from .pairing import Pair, Unfit, pair_up

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
_DIRECT = Outcome(APPLIED)
# How the native core answers: the module that has the name itself, or (outcome, start, rule, alternative, modules).
Resolution = int | native_types.Resolution
_FOUND, _NOT_FOUND, _SEVERAL = 0, 1, 2  # a resolution's outcome


@dataclass(slots=True)
class EntryPlan:
    """One (adapter, strength) of the composition, and the outcome of each of its groups."""

    adapter: Adapter
    strength: float
    outcomes: list[Outcome]
    resolutions: list[Resolution]
    index: ModelIndex

    def landings(self, group: int) -> tuple[Landing, ...]:
        """Where the group's pair goes; empty unless it is applied."""
        outcome = self.outcomes[group]
        if outcome is not _DIRECT:
            return outcome.landings
        module = self.resolutions[group]
        assert type(module) is int
        return (Landing(self.index.weights[module].name, None),)

    def count(self, status: str) -> int:
        return sum(outcome.status == status for outcome in self.outcomes)


@dataclass(slots=True)
class Plan:
    """All entries with their outcomes, all weights with their terms."""

    entries: list[EntryPlan]
    weights: dict[int, WeightPlan]  # by address

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


def make_plan(weights: ModelWeights, entries: Sequence[tuple[Adapter, float]], component: str | None) -> Plan:
    """Resolves and validates all adapters against one model; touches no weight and reads no factor."""
    planner = _Planner(weights, component)
    plans = [planner.add(position, adapter, strength) for position, (adapter, strength) in enumerate(entries)]
    return Plan(plans, planner.weights())


class _Planner:
    def __init__(self, weights: ModelWeights, component: str | None) -> None:
        self.look = weights.look
        self.index = weights.index
        self.component = component
        self._weights: dict[int, WeightPlan] = {}

    def add(self, position: int, adapter: Adapter, strength: float) -> EntryPlan:
        if abs(strength) < NEGLIGIBLE:
            skipped = Outcome(SKIPPED, f"strength {strength:g} is negligible")
            return EntryPlan(adapter, strength, [skipped] * len(adapter.classification), [], self.index)
        pairs = pair_up(adapter)
        resolutions = adapter.classification.resolve(self.index.names)
        foreign = self._foreign_groups(adapter, pairs, resolutions)
        outcomes = []
        for group, (pair, found) in enumerate(zip(pairs, resolutions, strict=True)):
            if foreign and group in foreign:
                outcomes.append(Outcome(ABSENT, foreign[group]))
            elif type(pair) is not Pair:
                assert type(pair) is Unfit
                outcomes.append(Outcome(pair.kind, pair.reason))
            elif type(found) is int and self._fits(position, strength, pair, found):
                outcomes.append(_DIRECT)
            else:
                outcomes.append(self._place(position, adapter, strength, pair, found))
        return EntryPlan(adapter, strength, outcomes, resolutions, self.index)

    def weights(self) -> dict[int, WeightPlan]:
        """The weights that terms fall on."""
        weights = {address: weight for address, weight in self._weights.items() if weight.terms}
        refuse_overlaps([weight.geometry for weight in weights.values()])
        return weights

    def _fits(self, position: int, strength: float, pair: Pair, module: int) -> bool:
        """Places the pair on all of the one module that has its name: nearly every pair of nearly every file."""
        geometry = self.look(module)
        if type(geometry) is not Geometry or pair.cols != geometry.cols or pair.rows != geometry.rows:
            return False
        if len(geometry.shape) > 2:
            return False
        if pair.scale != 0:
            weight = self._weights.get(geometry.address)
            if weight is None or weight.geometry is not geometry:
                weight = self._weight(geometry)
            weight.terms.append(Term(position, pair, strength * pair.scale, 0, pair.rows, 0))
        return True

    def _weight(self, geometry: Geometry) -> WeightPlan:
        plan = self._weights.get(geometry.address)
        if plan is None:
            plan = self._weights[geometry.address] = WeightPlan(geometry)
        elif not plan.geometry.same_form(geometry):
            raise ModelError(
                f"[compose] weights '{plan.geometry.name}.weight' and '{geometry.name}.weight' begin at the same "
                "address with different shapes, strides or dtypes, expected separate or fully tied weights"
            )
        return plan

    def _place(self, position: int, adapter: Adapter, strength: float, pair: Pair, found: Resolution) -> Outcome:
        modules: tuple[int, ...]
        placements: tuple[Placement, ...] = (WHOLE,)
        if isinstance(found, int):
            modules = (found,)
        else:
            outcome, _, rule, alternative, modules = found
            if outcome == _NOT_FOUND:
                return Outcome(ABSENT, "no module of the model has this name")
            if outcome == _SEVERAL:
                names = ", ".join(f"'{self.index.weights[module].name}'" for module in modules)
                return Outcome(AMBIGUOUS, f"it fits several modules: {names}")
            placements = adapter.tables.rules[rule].alternatives[alternative].placements
        landings, terms = [], []
        for module, placement in zip(modules, placements, strict=True):
            name = self.index.weights[module].name
            geometry = self.look(module)
            if isinstance(geometry, str):
                return Outcome(UNSUPPORTED, f"module '{name}': {geometry}")
            cut = _cut(pair, placement, geometry)
            if cut is None or not _same_kernel(adapter, pair, geometry):
                return Outcome(MISFIT, _misfit(adapter, pair, placement, geometry, name))
            begin, end, up_row = cut
            terms.append((geometry, Term(position, pair, strength * pair.scale, begin, end, up_row)))
            landings.append(Landing(name, None if (begin, end) == (0, geometry.rows) else (begin, end)))
        for geometry, term in terms:
            if term.scale != 0:
                self._weight(geometry).terms.append(term)
        return Outcome(APPLIED, "", tuple(landings))

    def _foreign_groups(
        self,
        adapter: Adapter,
        pairs: Sequence[Pair | Unfit],
        resolutions: Sequence[Resolution],
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
        resolutions: Sequence[Resolution],
    ) -> str | None:
        hits: Counter[str] = Counter()
        misfits: Counter[str] = Counter()
        for component, pair, module in zip(components, pairs, resolutions, strict=True):
            if component is None or type(module) is not int or type(pair) is not Pair:
                continue
            geometry = self.look(module)
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


def _cut(pair: Pair, placement: Placement, geometry: Geometry) -> tuple[int, int, int] | None:
    """(first row of the weight, one past the last, first row of the up factor), or None where shapes do not fit."""
    if pair.cols != geometry.cols:
        return None
    if placement.side == "whole":
        return (0, geometry.rows, 0) if pair.rows == geometry.rows else None
    rows = placement.rows(geometry.rows if placement.side == "target" else pair.rows)
    if rows is None:
        return None
    begin, end = rows
    if placement.side == "target":
        return (begin, end, 0) if end - begin == pair.rows else None
    return (0, geometry.rows, begin) if end - begin == geometry.rows else None


def _same_kernel(adapter: Adapter, pair: Pair, geometry: Geometry) -> bool:
    """False for a convolution's factor whose kernel is another one with as many elements. 2-D factors are flattened."""
    down = adapter.source.shapes[pair.down]
    return len(down) == 2 or len(geometry.shape) == 2 or tuple(geometry.shape[1:]) == down[1:]


def _misfit(adapter: Adapter, pair: Pair, placement: Placement, geometry: Geometry, module: str) -> str:
    names, shapes = adapter.source.names, adapter.source.shapes
    where = {"whole": "", "target": f", part {placement.part} of {len(placement.sizes)} of its rows"}
    part = where.get(placement.side, f", from part {placement.part} of {len(placement.sizes)} of the rows")
    return (
        f"'{names[pair.up]}' {list(shapes[pair.up])} x '{names[pair.down]}' {list(shapes[pair.down])} make "
        f"[{pair.rows}, {pair.cols}], expected [{geometry.rows}, {geometry.cols}] as module '{module}' has{part}; "
        "is the adapter made for another model?"
    )
