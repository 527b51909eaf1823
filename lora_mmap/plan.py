"""What a composition will do, decided before the first byte of a weight changes.

Every key of every adapter gets an outcome; every weight gets its rows and the terms that fall on them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from . import native_types
from .adapter import Adapter
from .errors import AdapterError, AmbiguousKeyError, ModelError, UnmatchedKeysError
from .families.compiled import WHOLE, Placement
from .geometry import Geometry, overlap
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
_DIRECT = Outcome(APPLIED)
# How the native core answers: the module that has the name itself, or (outcome, start, rule, alternative, modules).
Resolution = int | native_types.Resolution
_FOUND, _NOT_FOUND, _SEVERAL = 0, 1, 2  # a resolution's outcome


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

    @cached_property
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


def make_plan(
    weights: ModelWeights, entries: Sequence[tuple[Adapter, float]], component: str | None, dry_run: bool = False
) -> Plan:
    """Resolves and validates all adapters against one model; touches no weight and reads no factor.

    A ``dry_run`` plan may lead to weights that are elsewhere than on the CPU, or nowhere (meta).
    """
    planner = _Planner(weights, component, dry_run)
    return Plan([planner.add(adapter, strength) for adapter, strength in entries], weights)


class _Planner:
    def __init__(self, weights: ModelWeights, component: str | None, dry_run: bool) -> None:
        self.anywhere = dry_run
        self.all_here = dry_run or weights.all_on_cpu
        self.look = weights.look
        self.names = weights.index.names
        self.modules = weights.index.module_names
        self.component = component

    def add(self, adapter: Adapter, strength: float) -> EntryPlan:
        groups = len(adapter.classification)
        if abs(strength) < NEGLIGIBLE:
            skipped = Outcome(SKIPPED, f"strength {strength:g} is negligible")
            return EntryPlan(adapter, strength, [skipped] * groups, self.modules)
        entry = EntryPlan(adapter, strength, [_DIRECT] * groups, self.modules)
        # The name says the module and the pair is all of it: nearly every pair of nearly every file.
        one_component = self.component is None and not adapter.mixes_components
        quick = one_component and adapter.is_plain and self.all_here
        entry.direct = adapter.classification.fit(self.names) if quick else [-1] * groups
        others = [group for group, module in enumerate(entry.direct) if module < 0]
        if others:
            self._place_others(entry, others, one_component)
        return entry

    def _place_others(self, entry: EntryPlan, groups: list[int], one_component: bool) -> None:
        pairs = pair_up(entry.adapter)
        resolutions = entry.adapter.classification.resolve(self.names)
        foreign = {} if one_component else self._foreign_groups(entry.adapter, pairs, resolutions)
        for group in groups:
            pair = pairs[group]
            if group in foreign:
                entry.outcomes[group] = Outcome(ABSENT, foreign[group])
            elif isinstance(pair, Unfit):
                entry.outcomes[group] = Outcome(pair.kind, pair.reason)
            else:
                entry.outcomes[group] = self._place(entry, pair, resolutions[group])

    def _place(self, entry: EntryPlan, pair: Pair, found: Resolution) -> Outcome:
        modules: tuple[int, ...]
        placements: tuple[Placement, ...] = (WHOLE,)
        if isinstance(found, int):
            modules = (found,)
        else:
            outcome, _, rule, alternative, modules = found
            if outcome == _NOT_FOUND:
                return Outcome(ABSENT, "no module of the model has this name")
            if outcome == _SEVERAL:
                names = ", ".join(f"'{self.modules[module]}'" for module in modules)
                return Outcome(AMBIGUOUS, f"it fits several modules: {names}")
            placements = entry.adapter.tables.rules[rule].alternatives[alternative].placements
        landings, cuts = [], []
        for module, placement in zip(modules, placements, strict=True):
            name = self.modules[module]
            geometry = self.look(module)
            if isinstance(geometry, str):
                return Outcome(UNSUPPORTED, f"module '{name}': {geometry}")
            if geometry.device == "meta" and not self.anywhere:
                return Outcome(
                    UNSUPPORTED, f"module '{name}': its weight is on the meta device, there is nothing there"
                )
            cut = _cut(pair, placement, geometry)
            if cut is None or not _same_kernel(entry.adapter, pair, geometry):
                return Outcome(MISFIT, _misfit(entry.adapter, pair, placement, geometry, name))
            if geometry.device not in ("cpu", "meta") and not self.anywhere:
                raise ModelError(
                    f"[compose] weight '{name}.weight' is on {geometry.weight.device}, expected cpu: this version "
                    "fuses on the CPU"
                )
            cuts.append(cut)
            landings.append(Landing(name, None if (cut.begin, cut.end) == (0, geometry.rows) else (cut.begin, cut.end)))
        entry.placed[pair.group] = cuts
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


def _cut(pair: Pair, placement: Placement, geometry: Geometry) -> Cut | None:
    """Where the pair lands in the weight, or None where the shapes do not fit."""
    if pair.cols != geometry.cols:
        return None
    if placement.side == "whole":
        return Cut(geometry, 0, geometry.rows, 0) if pair.rows == geometry.rows else None
    rows = placement.rows(geometry.rows if placement.side == "target" else pair.rows)
    if rows is None:
        return None
    begin, end = rows
    if placement.side == "target":
        return Cut(geometry, begin, end, 0) if end - begin == pair.rows else None
    return Cut(geometry, 0, geometry.rows, begin) if end - begin == geometry.rows else None


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
