"""Which family an adapter is for, told from its own names and shapes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .compiled import Tables
from .rules import flattened

if TYPE_CHECKING:
    from ..adapter import Group


def likeliest(
    tables: Tables, groups: Iterable[Group], shapes: Sequence[Sequence[int]], base_model: str = ""
) -> list[str]:
    """The families that know the most module paths, and no fewer than half of them.

    Names that a main model has and no text encoder decide, where there are any: without them the file is for a text
    encoder. Of equals, those whose widths agree with the shapes stay, if there are such; one that ``base_model`` names
    comes first, then the order of the tables.
    """
    main_models = {family.name for family in tables.families.values() if "denoiser" in family.components}
    votes: Counter[str] = Counter()
    deciding: set[str] = set()
    against: set[str] = set()
    nobodys = 0
    for group in groups:
        known = {family for rule in group.rules for family, _ in tables.rules[rule].namings}
        nobodys += not known
        votes.update(known)
        if known <= main_models:
            deciding |= known
        against.update(family for family in known - against if not _width_agrees(tables, family, group, shapes))
    meant = deciding or votes.keys() - main_models
    most = max((votes[family] for family in meant), default=0)
    if most == 0 or most < nobodys:
        return []
    best = {family for family in meant if votes[family] == most}
    order = list(tables.families)
    return sorted(best - against or best, key=lambda name: (not _is_named(tables, name, base_model), order.index(name)))


def _width_agrees(tables: Tables, family: str, group: Group, shapes: Sequence[Sequence[int]]) -> bool:
    widths = tables.widths[family]
    if not widths:
        return True
    for rule in group.rules:
        expected = widths.get(flattened(tables.rules[rule].pattern))
        if expected is None:
            continue
        for suffix, tensor in group.members:
            if tables.suffixes[suffix].role == "down" and math.prod(shapes[tensor][1:]) not in expected:
                return False
    return True


def _is_named(tables: Tables, family: str, base_model: str) -> bool:
    """True when what a trainer calls the base model contains one of the family's own names."""
    told = base_model.lower()
    return bool(told) and any(name in told for name in (family, *tables.families[family].base_models))
