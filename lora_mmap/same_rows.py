"""Two modules of one file on the same elements of a weight: the same tensors twice, or what nobody can mean."""

from __future__ import annotations

from .model_weights import ModelWeights
from .outcomes import AMBIGUOUS, IGNORED, EntryPlan, Outcome
from .placing import overlapping
from .terms import Cut


def settle_overlaps(entry: EntryPlan, weights: ModelWeights) -> None:
    """Leaves out what a family says is a duplicate; everything else that falls on the same elements is ambiguous.

    PEFT adapters of different names in one file may meet: they are several adapters.
    """
    taken = [module for module in entry.direct if module >= 0]
    if not entry.placed and len(set(taken)) == len(taken):
        return
    for groups in _sharing(entry, weights):
        kept: dict[str, list[int]] = {}  # by the adapter's name: few, since no two of them meet
        for group in groups:
            _add(entry, group, kept.setdefault(entry.adapter.groups[group].infix, []), weights)


def _add(entry: EntryPlan, group: int, kept: list[int], weights: ModelWeights) -> None:
    """Puts ``group`` to those that are ``kept``, or leaves out whichever should not be there."""
    for other in list(kept):
        if _meet(entry, group, other, weights):
            left = _settle(entry, group, other)
            if left == group:
                return
            kept.remove(left)
    if _cuts(entry, group, weights):  # another weight may have left it out before
        kept.append(group)


def _sharing(entry: EntryPlan, weights: ModelWeights) -> list[list[int]]:
    """The groups that have a weight in common, by weight."""
    by_weight: dict[int, list[int]] = {}
    for group, module in enumerate(entry.direct):
        if module >= 0:
            by_weight.setdefault(id(weights.look(module)), []).append(group)
    for group, placed in entry.placed.items():
        for weight in {id(cut.geometry) for cut in placed} if len(placed) > 1 else (id(placed[0].geometry),):
            by_weight.setdefault(weight, []).append(group)
    return [sorted(groups) for groups in by_weight.values() if len(groups) > 1]


def _meet(entry: EntryPlan, one: int, other: int, weights: ModelWeights) -> bool:
    return overlapping(_cuts(entry, one, weights), _cuts(entry, other, weights))


def _cuts(entry: EntryPlan, group: int, weights: ModelWeights) -> list[Cut]:
    if entry.direct[group] < 0:
        return entry.placed.get(group, [])
    place = weights.look(entry.direct[group])
    assert not isinstance(place, str)
    return [Cut(place, (0, place.rows), (0, place.cols))]


def _settle(entry: EntryPlan, group: int, other: int) -> int:
    """Leaves out one of two groups that meet, and returns it."""
    stems = entry.adapter.groups[group].stem, entry.adapter.groups[other].stem
    for kept, left in ((group, other), (other, group)):
        if _is_duplicate(entry, kept, left):
            _leave_out(entry, left, Outcome(IGNORED, f"'{entry.adapter.groups[kept].stem}' says the same again"))
            return left
    outcome = Outcome(AMBIGUOUS, f"'{stems[0]}' and '{stems[1]}' are for the same elements of one weight")
    _leave_out(entry, group, outcome)
    return group


def _is_duplicate(entry: EntryPlan, kept: int, left: int) -> bool:
    namings = [_namings(entry, group) for group in (kept, left)]
    return any(
        (family.name, first) in namings[0] and (family.name, second) in namings[1]
        for family in entry.adapter.tables.families.values()
        for first, second in family.duplicates
    )


def _namings(entry: EntryPlan, group: int) -> set[tuple[str, str]]:
    rules = entry.adapter.tables.rules
    return {naming for rule in entry.adapter.groups[group].rules for naming in rules[rule].namings}


def _leave_out(entry: EntryPlan, group: int, outcome: Outcome) -> None:
    landings = entry.landings(group)
    entry.outcomes[group] = outcome._replace(landings=() if outcome.status == IGNORED else landings)
    entry.direct[group] = -1
    entry.placed.pop(group, None)
