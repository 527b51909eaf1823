"""Two modules of one file on the same elements of a weight: the same tensors twice, or what nobody can mean."""

from __future__ import annotations

from collections import defaultdict

from .geometry import Geometry
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
    by_weight: dict[int, list[tuple[int, list[Cut]]]] = defaultdict(list)
    for group, module in enumerate(entry.direct):
        placed = _cuts(entry, group, module, weights)
        for weight in {id(cut.geometry) for cut in placed}:
            by_weight[weight].append((group, placed))
    for groups in by_weight.values():
        for position, (group, placed) in enumerate(groups):
            for other, theirs in groups[:position]:
                if _same_adapter(entry, group, other) and overlapping(placed, theirs):
                    _settle(entry, group, other)


def _cuts(entry: EntryPlan, group: int, module: int, weights: ModelWeights) -> list[Cut]:
    if module < 0:
        return entry.placed.get(group, [])
    geometry = weights.look(module)
    assert isinstance(geometry, Geometry)
    return [Cut(geometry, (0, geometry.rows), (0, geometry.cols))]


def _same_adapter(entry: EntryPlan, one: int, other: int) -> bool:
    groups = entry.adapter.groups
    return groups[one].infix == groups[other].infix


def _settle(entry: EntryPlan, group: int, other: int) -> None:
    stems = entry.adapter.groups[group].stem, entry.adapter.groups[other].stem
    for kept, left in ((group, other), (other, group)):
        if _is_duplicate(entry, kept, left):
            _leave_out(entry, left, Outcome(IGNORED, f"'{entry.adapter.groups[kept].stem}' says the same again"))
            return
    outcome = Outcome(AMBIGUOUS, f"'{stems[0]}' and '{stems[1]}' are for the same elements of one weight")
    _leave_out(entry, group, outcome)


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
