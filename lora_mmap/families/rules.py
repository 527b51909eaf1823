"""From tables to rules: for every path that a file may say, the ways in which a model may spell the same weight."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..errors import PatternError
from .placement import WHOLE, Placement, placement
from .soundness import require_sound
from .tables import Family, Layout, Naming, Weights


@dataclass(frozen=True, slots=True)
class RuleAlternative:
    """One spelling of a rule's path in a model: the target paths, and where in each the pair lands. ``beside`` is the
    module that the model must have for it, ``infix`` the adapter name that the file must give, if any."""

    family: str
    paths: tuple[str, ...]
    placements: tuple[Placement, ...]
    beside: str = ""
    infix: str = ""

    @property
    def is_whole(self) -> bool:
        """True when it is another name of the same matrix, whatever its shape."""
        return self.placements == (WHOLE,)


@dataclass(slots=True)
class RuleMeaning:
    """What a native rule number stands for. ``namings`` are (family, naming) that know the path, ``weights`` (family,
    number in its table) those it may be."""

    pattern: str
    alternatives: list[RuleAlternative] = field(default_factory=list)
    namings: list[tuple[str, str]] = field(default_factory=list)
    weights: set[tuple[str, int]] = field(default_factory=set)


def make_rules(families: Iterable[Family]) -> list[RuleMeaning]:
    """The rules of all families, each pattern once. Raises PatternError where a table makes no sense."""
    rules: dict[str, RuleMeaning] = {}
    for family in families:
        namings = {naming.name: naming for naming in family.namings}
        for number, weights in enumerate(family.weights):
            require_sound(family, weights)
            spellings: dict[tuple[Layout, str], list[tuple[str, RuleAlternative]]] = {}
            for source, path, layout in _sources(weights, namings):
                rule = _rule(rules, path)
                rule.weights.add((family.name, number))
                if (family.name, source) not in rule.namings:
                    rule.namings.append((family.name, source))
                said = layout, namings[source].infix if source in namings else ""
                if said not in spellings:
                    spellings[said] = list(_spellings(family.name, weights, namings, *said))
                for target, way in spellings[said]:
                    if way.paths != (path,) or (target != source and way.placements != (WHOLE,)):
                        _add(rule, way)
    return list(rules.values())


def flattened(path: str) -> str:
    """What paths that trainers flatten alike have in common."""
    return path.replace(".", "_")


def _rule(rules: dict[str, RuleMeaning], path: str) -> RuleMeaning:
    """The rule for ``path`` and for what trainers flatten to the same text (``attention.to.q``, ``attention.to_q``)."""
    flat = flattened(path)
    rule = rules.get(flat)
    if rule is None:
        rule = rules[flat] = RuleMeaning(path)
    elif rule.pattern != path:
        rule.pattern = "".join("." if "." in pair else pair[0] for pair in zip(rule.pattern, path, strict=True))
    return rule


def _sources(weights: Weights, namings: Mapping[str, Naming]) -> Iterator[tuple[str, str, Layout]]:
    """What a file may say: (naming, path, layout). Equal paths of a naming told apart in models are not its own."""
    conditional = {name for name in weights.names if name in namings and namings[name].beside}
    told = {name for name in weights.names if name in namings and namings[name].infix}
    plain = {path for name, paths in weights.names.items() if name not in conditional | told for path in paths}
    for name, paths in weights.names.items():
        for path, layout in paths.items():
            if name not in conditional or path not in plain:
                yield name, path, layout


def _spellings(
    family: str, weights: Weights, namings: Mapping[str, Naming], layout: Layout, infix: str
) -> Iterator[tuple[str, RuleAlternative]]:
    """The ways to spell what a path of ``layout`` holds, in each naming of models that has all of its pieces, for files
    with ``infix``."""
    for name, paths in weights.names.items():
        naming = namings.get(name) or Naming(name)
        if not naming.in_models:
            continue
        for covering in _covers(paths, layout):
            placements = tuple(placement(weights, layout, paths[target]) for target in covering)
            yield name, RuleAlternative(family, covering, placements, naming.beside, infix)


def _covers(paths: Mapping[str, Layout], layout: Layout) -> Iterator[tuple[str, ...]]:
    """The sets of a naming's paths that hold every piece of ``layout`` once: usually one set, or none."""
    wanted = set(layout.pieces)
    parts: dict[str, set[str]] = {}
    for path, held in paths.items():
        pieces = wanted.intersection(held.pieces)
        if pieces == wanted:
            yield (path,)
        elif pieces:
            parts[path] = pieces
    if sum(map(len, parts.values())) == len(wanted) == len(set().union(*parts.values())):
        yield tuple(parts)


def _add(rule: RuleMeaning, way: RuleAlternative) -> None:
    for twin in rule.alternatives:
        if (twin.paths, twin.beside, twin.infix) != (way.paths, way.beside, way.infix):
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
