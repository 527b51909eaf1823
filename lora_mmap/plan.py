"""What a composition will do, decided before the first byte of a weight changes.

Every key of every adapter gets an outcome; every weight gets its rows and the terms that fall on them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from .errors import AdapterError, AmbiguousKeyError, ModelError, UnmatchedKeysError
from .geometry import Geometry, overlap
from .model_weights import ModelWeights
from .outcomes import ABSENT, AMBIGUOUS, APPLIED, MALFORMED, MISFIT, UNKNOWN, UNSUPPORTED, EntryPlan
from .pairing import Pair, pair_up
from .sharing import lazy
from .targets.branch_place import BranchPlace, key_of
from .targets.branch_plan import BranchPlan, Wishes
from .terms import Cut, Term, WeightPlan

# |strength| below this leaves the adapter out, as upstream does.
NEGLIGIBLE = 1e-5


class _Places(NamedTuple):
    """Where terms fall: weights by address, branches by module."""

    weights: dict[int, WeightPlan]
    branches: dict[int, BranchPlan]


class Plan:
    """All entries with their outcomes; where their terms fall is put together when somebody needs it."""

    def __init__(self, entries: list[EntryPlan], model: ModelWeights, wishes: Wishes) -> None:
        self.entries = entries
        self.wishes = wishes
        self._model: ModelWeights | None = model
        if model.has_overlaps:
            _ = self.weights  # raises where the adapters meet an overlap

    @property
    def weights(self) -> dict[int, WeightPlan]:
        """The weights that terms fall on, by address. Raises ModelError where two of them share bytes in different
        forms."""
        return self._places.weights

    @property
    def branches(self) -> list[BranchPlan]:
        """The branches of quantised modules that terms go into."""
        return list(self._places.branches.values())

    @lazy
    def _places(self) -> _Places:
        assert self._model is not None
        weights: dict[int, WeightPlan] = {}
        branches: dict[int, BranchPlan] = {}
        for term in self._terms():
            place = term.cut.geometry
            if isinstance(place, BranchPlace):
                module = key_of(place)
                if module not in branches:
                    branches[module] = BranchPlan(place)
                branches[module].terms.append(term)
                continue
            if not place.within_reach:  # only a dry run plans elsewhere
                continue
            weight = weights.get(place.address)
            if weight is None or weight.geometry is not place:
                weight = _weight_at(weights, place)
            weight.terms.append(term)
        for branch in branches.values():
            branch.lay_out(self.entries, self.wishes.svd_rank)
        crossing = overlap(weight.geometry for weight in weights.values())
        if crossing:
            raise ModelError(
                f"[compose] weights '{crossing[0].path}' and '{crossing[1].path}' overlap in memory "
                "without being the same region, expected separate or fully tied weights"
            )
        self._model.note_sharers(weights.values())
        return _Places(weights, branches)

    def _terms(self) -> Iterator[Term]:
        assert self._model is not None
        for position, entry in enumerate(self.entries):
            pairs = pair_up(entry.adapter) if entry.direct else []
            for group, module in enumerate(entry.direct):
                pair = pairs[group]
                if module >= 0:
                    place = self._model.look(module)
                    assert not isinstance(place, str)
                    cuts = [Cut(place, (0, place.rows), (0, place.cols))]
                else:
                    cuts = entry.placed.get(group, [])
                for cut in cuts:
                    formula = pair if isinstance(pair, Pair) else entry.formulas[group][cut.parameter]
                    if not formula.is_nothing:
                        yield Term(position, formula, entry.strength, cut)

    def forget_weights(self) -> None:
        """Lets go of the model's weights; the outcomes stay, for the report."""
        self._model = None
        self.__dict__.pop("_places", None)
        for entry in self.entries:
            entry.placed.clear()

    def raise_if_unfit(self, strict: bool, function: str = "compose") -> None:
        """Raises for what makes an adapter unusable; with ``strict`` also for anything that would not be applied."""
        for entry in self.entries:
            for status, error in ((AMBIGUOUS, AmbiguousKeyError), (MALFORMED, AdapterError), (MISFIT, AdapterError)):
                _raise_first(function, entry, (status,), error)
        if strict:
            raise_if_homeless([self], function)
        for branch in self.branches:
            branch.require_room(function, self.entries)


def raise_if_homeless(plans: Sequence[Plan], function: str) -> None:
    """Raises UnmatchedKeysError for what none of these plans, of the modules of one pipeline, applies."""
    by_adapter: dict[int, list[EntryPlan]] = {}
    for plan in plans:
        for entry in plan.entries:
            by_adapter.setdefault(id(entry.adapter), []).append(entry)
    for entries in by_adapter.values():
        homes = [[i for i, outcome in enumerate(entry.outcomes) if outcome.status == APPLIED] for entry in entries]
        housed = set().union(*homes)
        _raise_first(function, entries[0], (ABSENT, UNSUPPORTED, UNKNOWN), UnmatchedKeysError, but=housed)
        for entry in entries:
            _raise_missing(function, entry)
        adapter = entries[0].adapter
        if unknown := adapter.classification.unknown:
            raise UnmatchedKeysError(
                f"[{function}] {adapter.label}: {len(unknown)} keys end in no known suffix, the first is "
                f"'{adapter.source.names[unknown[0]]}' (strict=True)"
            )


def _raise_missing(function: str, entry: EntryPlan) -> None:
    for group, outcome in zip(entry.adapter.groups, entry.outcomes, strict=True):
        for why in outcome.missing.values():
            raise UnmatchedKeysError(f"[{function}] {entry.adapter.label}: '{group.stem}': {why} (strict=True)")


def _raise_first(
    function: str, entry: EntryPlan, statuses: tuple[str, ...], error: type[AdapterError], but: Collection[int] = ()
) -> None:
    outcomes = enumerate(entry.outcomes)
    hits = [(i, outcome) for i, outcome in outcomes if outcome.status in statuses and i not in but]
    if hits:
        index, outcome = hits[0]
        more = f" (and {len(hits) - 1} more of {len(entry.outcomes)} modules)" if len(hits) > 1 else ""
        stem = entry.adapter.groups[index].stem
        raise error(f"[{function}] {entry.adapter.label}: '{stem}' is {outcome.status}: {outcome.reason}{more}")


def _weight_at(weights: dict[int, WeightPlan], geometry: Geometry) -> WeightPlan:
    plan = weights.get(geometry.address)
    if plan is None:
        plan = weights[geometry.address] = WeightPlan(geometry)
    elif not plan.geometry.same_form(geometry):
        raise ModelError(
            f"[compose] weights '{plan.geometry.path}' and '{geometry.path}' begin at the same "
            "address with different shapes, strides or dtypes, expected separate or fully tied weights"
        )
    return plan
