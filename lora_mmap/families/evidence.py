"""Which family an adapter is for, told from its own names and shapes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .compiled import Tables

if TYPE_CHECKING:
    from ..adapter import Group


def likeliest(
    tables: Tables, groups: Iterable[Group], shapes: Sequence[Sequence[int]], base_model: str = ""
) -> list[str]:
    """The families that know the most module paths, less those whose widths disagree with the shapes.

    Names that a main model has and no text encoder decide, where there are any: without them the file is for a text
    encoder. Of equals, one that ``base_model`` names comes first, then the order of the tables.
    """
    votes: Counter[str] = Counter()
    against: set[str] = set()
    main_models = {family.name for family in tables.families.values() if "denoiser" in family.components}
    deciding: set[str] = set()
    for group in groups:
        known = {family for rule in group.rules for family, _ in tables.rules[rule].namings}
        votes.update(known)
        if known <= main_models:
            deciding |= known
        for family in known:
            if family not in against and not _width_agrees(tables, family, group, shapes):
                against.add(family)
    meant = deciding or votes.keys() - main_models
    candidates = [family for family in votes if family in meant and family not in against]
    most = max((votes[family] for family in candidates), default=0)
    order = list(tables.families)
    named = [family for family in candidates if votes[family] == most]
    return sorted(named, key=lambda family: (not _is_named(tables, family, base_model), order.index(family)))


def _width_agrees(tables: Tables, family: str, group: Group, shapes: Sequence[Sequence[int]]) -> bool:
    widths = tables.families[family].widths
    if not widths:
        return True
    for rule in group.rules:
        expected = widths.get(tables.rules[rule].pattern)
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
