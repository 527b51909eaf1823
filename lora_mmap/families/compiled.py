"""From tables to one native automaton, and back from its rule numbers to what the tables say."""

from __future__ import annotations

from dataclasses import dataclass

from .. import _C
from ..errors import PatternError
from ..sharing import ForkSafeLock
from . import qwen_image
from .prefixes import PREFIXES
from .suffixes import SUFFIXES
from .tables import Family, Layout, Rows


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a factor pair lands when a rule places it: rows ``part`` of ``sizes`` of the target, of the source, or all.

    ``side`` is ``"target"`` (the pair belongs to some rows of the model's weight), ``"source"`` (some rows of the
    pair's up factor belong to the model's weight) or ``"whole"``.
    """

    side: str = "whole"
    part: int = 0
    sizes: tuple[int, ...] = ()

    def rows(self, total: int) -> tuple[int, int] | None:
        """The half-open row range within ``total`` rows, or None where they do not divide."""
        if self.side == "whole":
            return 0, total
        unit, rest = divmod(total, sum(self.sizes))
        if rest:
            return None
        begin = unit * sum(self.sizes[: self.part])
        return begin, begin + unit * self.sizes[self.part]


WHOLE = Placement()


@dataclass(frozen=True, slots=True)
class RuleAlternative:
    """One spelling of a rule's path in a model: the target paths, and where in each the pair lands."""

    family: str
    paths: tuple[str, ...]
    placements: tuple[Placement, ...]


@dataclass(frozen=True, slots=True)
class RuleMeaning:
    """What a native rule number stands for."""

    pattern: str
    alternatives: tuple[RuleAlternative, ...]
    marks: frozenset[str]
    components: frozenset[str]


class Tables:
    """All tables as they stood at one moment, compiled. Immutable, shared by every adapter opened meanwhile."""

    def __init__(self, families: tuple[Family, ...]) -> None:
        self.families = families
        self.suffixes = SUFFIXES
        self.prefixes = PREFIXES
        self.rules = _rules(families)
        self.grammar = _C.Grammar(
            [(suffix.pattern, suffix.role) for suffix in SUFFIXES],
            [prefix.pattern for prefix in PREFIXES],
            [(rule.pattern, [list(way.paths) for way in rule.alternatives]) for rule in self.rules],
        )


def _ways(layout: Layout) -> list[tuple[str, tuple[str, ...], tuple[Placement, ...]]]:
    """A layout as directed rules: (path in the file, paths in the model, placements)."""
    if isinstance(layout, Rows):
        cuts = tuple(Placement("source", part, layout.sizes) for part in range(len(layout.parts)))
        ways = [(layout.whole, layout.parts, cuts)]
        for part, path in enumerate(layout.parts):
            ways.append((path, (layout.whole,), (Placement("target", part, layout.sizes),)))
        return ways
    return [(here, (there,), (WHOLE,)) for here in layout.names for there in layout.names if here != there]


def _rules(families: tuple[Family, ...]) -> tuple[RuleMeaning, ...]:
    alternatives: dict[str, list[RuleAlternative]] = {}
    marks: dict[str, set[str]] = {}
    components: dict[str, set[str]] = {}
    for family in families:
        for mark in family.marks:
            alternatives.setdefault(mark, [])
            marks.setdefault(mark, set()).add(family.name)
        for layout in family.layouts:
            for pattern, paths, placements in _ways(layout):
                way = RuleAlternative(family.name, paths, placements)
                twin = next((w for w in alternatives.get(pattern, ()) if w.paths == paths), None)
                if twin is None:
                    alternatives.setdefault(pattern, []).append(way)
                elif twin.placements != placements:
                    raise PatternError(
                        f"[register_family] '{pattern}' -> {list(paths)}: families {twin.family!r} and {family.name!r} "
                        "place it differently"
                    )
                components.setdefault(pattern, set()).update(family.components)
    return tuple(
        RuleMeaning(pattern, tuple(ways), frozenset(marks.get(pattern, ())), frozenset(components.get(pattern, ())))
        for pattern, ways in alternatives.items()
    )


_lock = ForkSafeLock()
_families: tuple[Family, ...] = (qwen_image.FAMILY,)
_tables: Tables | None = None


def key_tables() -> Tables:
    """The compiled tables; compiled on first use and again after :func:`register_family`."""
    global _tables
    with _lock:
        if _tables is None:
            _tables = Tables(_families)
        return _tables


def register_family(family: Family) -> None:
    """Adds a family table for this process; adapters opened or composed from now on know it.

    Raises :class:`~lora_mmap.errors.PatternError` when a pattern is malformed, when the name is taken, or when the
    table contradicts another; the tables then stay as they were.
    """
    global _families, _tables
    with _lock:
        if any(known.name == family.name for known in _families):
            raise PatternError(f"[register_family] a family named {family.name!r} is registered already")
        grown = (*_families, family)
        _families, _tables = grown, Tables(grown)
