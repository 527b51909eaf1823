"""From tables to one native automaton, and back from its rule numbers to what the tables say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .. import _C
from ..errors import PatternError
from ..sharing import ForkSafeLock
from .known import FAMILIES
from .placement import Placement, placement
from .prefixes import PREFIXES
from .suffixes import SUFFIXES
from .tables import Family, Layout, Naming, Weights


@dataclass(frozen=True, slots=True)
class RuleAlternative:
    """One spelling of a rule's path in a model: the target paths, and where in each the pair lands. ``beside`` is the
    module that the model must have for it, if any."""

    family: str
    paths: tuple[str, ...]
    placements: tuple[Placement, ...]
    beside: str = ""


@dataclass(slots=True)
class RuleMeaning:
    """What a native rule number stands for. ``namings`` are (family, naming) that know the path, ``weights`` (family,
    number in its table) those it may be."""

    pattern: str
    alternatives: list[RuleAlternative] = field(default_factory=list)
    namings: list[tuple[str, str]] = field(default_factory=list)
    weights: set[tuple[str, int]] = field(default_factory=set)


class Tables:
    """All tables as they stood at one moment, compiled. Immutable, shared by every adapter opened meanwhile."""

    def __init__(self, families: tuple[Family, ...]) -> None:
        self.families = {family.name: family for family in families}
        self.suffixes = SUFFIXES
        self.prefixes = PREFIXES
        self.rules = _rules(families)
        self.grammar = _C.Grammar(
            [(suffix.pattern, suffix.role, len(suffix.keep)) for suffix in SUFFIXES],
            [prefix.pattern for prefix in PREFIXES],
            [(rule.pattern, [(list(way.paths), way.beside) for way in rule.alternatives]) for rule in self.rules],
        )
        _refuse_ambiguous(self.rules, self.grammar)


def _refuse_ambiguous(rules: list[RuleMeaning], grammar: _C.Grammar) -> None:
    """Raises PatternError where a family has two patterns for one path that mean different weights."""
    for first, second in grammar.overlaps():
        one, other = rules[first], rules[second]
        if not one.alternatives or not other.alternatives:  # a name that is only known
            continue
        for family in sorted({family for family, _ in one.weights} & {family for family, _ in other.weights}):
            mine, theirs = ({w for f, w in rule.weights if f == family} for rule in (one, other))
            if not mine & theirs:
                raise PatternError(
                    f"[register_family] family {family!r}: '{one.pattern}' and '{other.pattern}' both match some path, "
                    "and they are different weights"
                )


def _rules(families: tuple[Family, ...]) -> list[RuleMeaning]:
    rules: dict[str, RuleMeaning] = {}
    for family in families:
        for number, weights in enumerate(family.weights):
            _validate(family, weights)
            for naming, path, layout in sources(family, weights):
                rule = _rule(rules, path)
                rule.weights.add((family.name, number))
                if (family.name, naming) not in rule.namings:
                    rule.namings.append((family.name, naming))
                for way in _ways(family, weights, naming, path, layout):
                    _add(rule, way)
    return list(rules.values())


def _rule(rules: dict[str, RuleMeaning], path: str) -> RuleMeaning:
    """The rule for ``path`` and for what trainers flatten to the same text (``attention.to.q``, ``attention.to_q``)."""
    rule = rules.setdefault(path.replace(".", "_"), RuleMeaning(path))
    rule.pattern = "".join("." if "." in pair else pair[0] for pair in zip(rule.pattern, path, strict=True))
    return rule


def sources(family: Family, weights: Weights) -> Iterator[tuple[str, str, Layout]]:
    """What a file may say: (naming, path, layout). Equal paths of a naming told apart in models are not its own."""
    plain = {path for naming, paths in weights.names.items() if not _naming(family, naming).beside for path in paths}
    for naming, paths in weights.names.items():
        for path, layout in paths.items():
            if not (_naming(family, naming).beside and path in plain):
                yield naming, path, layout


def _ways(family: Family, weights: Weights, source: str, path: str, layout: Layout) -> Iterator[RuleAlternative]:
    """The spellings of ``path`` in models, one per naming that has all of its pieces."""
    for name, paths in weights.names.items():
        naming = _naming(family, name)
        if not naming.in_models:
            continue
        for covering in _covers(paths, layout):
            placements = tuple(placement(weights, layout, paths[target]) for target in covering)
            if covering == (path,) and (placements[0].is_whole or name == source):
                continue  # the name itself says it
            yield RuleAlternative(family.name, covering, placements, naming.beside)


def _covers(paths: Mapping[str, Layout], layout: Layout) -> Iterator[tuple[str, ...]]:
    """The sets of a naming's paths that hold every piece of ``layout`` once: usually one set, or none."""
    wanted = set(layout.pieces)
    holders = {path: wanted.intersection(held.pieces) for path, held in paths.items()}
    for path, pieces in holders.items():
        if pieces == wanted:
            yield (path,)
    parts = tuple(path for path, pieces in holders.items() if pieces and pieces != wanted)
    if sum(len(holders[path]) for path in parts) == len(wanted) == len(set().union(*(holders[p] for p in parts))):
        yield parts


def _add(rule: RuleMeaning, way: RuleAlternative) -> None:
    for twin in rule.alternatives:
        if twin.paths != way.paths or twin.beside != way.beside:
            continue
        if twin.placements == way.placements:
            return
        if not _told_apart(twin, way):
            raise PatternError(
                f"[register_family] '{rule.pattern}' -> {list(way.paths)}: families {twin.family!r} and {way.family!r} "
                "place it differently, and shapes do not tell which of them is right"
            )
    rule.alternatives.append(way)


def _told_apart(one: RuleAlternative, other: RuleAlternative) -> bool:
    """True when no shapes fit both: the proportions differ, of the pieces or of rows to columns."""
    return any(
        a.target_units * b.source_units != b.target_units * a.source_units
        or (a.square and b.square and a.target_units != b.target_units)
        for a, b in zip(one.placements, other.placements, strict=True)
    )


def _naming(family: Family, name: str) -> Naming:
    return next((naming for naming in family.namings if naming.name == name), Naming(name))


def _validate(family: Family, weights: Weights) -> None:
    where = f"[register_family] family {family.name!r}"
    listed: dict[str, str] = {}
    for naming, paths in weights.names.items():
        for path, layout in paths.items():
            unknown = [piece for piece in layout.pieces if piece not in weights.sizes]
            if unknown:
                raise PatternError(f"{where}: '{path}' holds {unknown[0]!r}, expected one of {list(weights.sizes)}")
            if len(set(layout.pieces)) != len(layout.pieces) or not layout.pieces:
                raise PatternError(f"{where}: '{path}' holds {list(layout.pieces)}, expected each piece once")
            if layout.interleaved and len({weights.sizes[piece] for piece in layout.pieces}) > 1:
                raise PatternError(f"{where}: '{path}' interleaves pieces of different sizes")
            beside = _naming(family, naming).beside
            twin = listed.get(path)
            if twin is not None and bool(beside) == bool(_naming(family, twin).beside):
                first, second = weights.names[twin][path], layout
                if first != second:
                    raise PatternError(f"{where}: '{path}' is written for {twin} and for {naming}, with other pieces")
            listed.setdefault(path, naming)
    for size in weights.sizes.values():
        if size < 1:
            raise PatternError(f"{where}: sizes are {dict(weights.sizes)}, expected positive integers")
    for known in family.namings:
        if not known.in_models and known.name in weights.names and len(weights.names) == 1:
            path = next(iter(weights.names[known.name]))
            raise PatternError(f"{where}: '{path}' leads nowhere: only files are named so")


_lock = ForkSafeLock()
_families: tuple[Family, ...] = FAMILIES
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
    table contradicts itself or another; the tables then stay as they were.
    """
    global _families, _tables
    with _lock:
        if any(known.name == family.name for known in _families):
            raise PatternError(f"[register_family] a family named {family.name!r} is registered already")
        grown = (*_families, family)
        _families, _tables = grown, Tables(grown)
