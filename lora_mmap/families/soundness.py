"""What a table must not say: checked when it is compiled, so that a user's mistake never becomes a wrong weight."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..errors import PatternError
from .dialects import DIALECTS
from .tables import Family, Layout, Weights

if TYPE_CHECKING:
    from .rules import RuleMeaning


def require_sound(family: Family, weights: Weights) -> None:
    """Raises PatternError for pieces, sizes and namings that contradict themselves."""
    where = f"[register_family] family {family.name!r}"
    if any(size < 1 for size in weights.sizes.values()):
        raise PatternError(f"{where}: sizes are {dict(weights.sizes)}, expected positive integers")
    for paths in weights.names.values():
        for path, layout in paths.items():
            _require_layout(where, path, layout, weights)
    of_models = {naming.name for naming in family.namings if naming.beside}
    of_files = {naming.name for naming in family.namings if naming.infix}
    for group in (set(weights.names) - of_models - of_files, of_models, of_files):
        _require_one_meaning(where, weights, [naming for naming in weights.names if naming in group])
    for naming in family.namings:
        if not naming.in_models and set(weights.names) == {naming.name}:
            path = next(iter(weights.names[naming.name]))
            raise PatternError(f"{where}: '{path}' leads nowhere: only files are named so")


def require_known_names(family: Family, families: Iterable[str]) -> None:
    """Raises PatternError for namings, paths, dialects and text encoders that the table mentions and nobody has."""
    namings = {naming for weights in family.weights for naming in weights.names}
    paths = {path for weights in family.weights for naming in weights.names.values() for path in naming}
    written = family.written or {}
    encoders = family.text_encoders or {}
    mentioned = {
        "namings": ({naming.name for naming in family.namings}, namings),
        "duplicates": ({naming for pair in family.duplicates for naming in pair}, namings),
        "written": ({naming for order in written.values() for naming in order.split()}, namings),
        "written's dialects": (set(written), set(DIALECTS)),
        "widths": (set(family.widths or ()), paths),
        "text_encoders": ({encoder.family for encoder in encoders.values()}, {family.name, *families}),
    }
    for where, (names, known) in mentioned.items():
        if unknown := sorted(names - known):
            listed = ", ".join(map(repr, sorted(known))) if len(known) < 20 else "one that the table has"
            raise PatternError(
                f"[register_family] family {family.name!r}: {where} mentions {unknown[0]!r}, expected {listed}"
            )


def require_unambiguous(rules: Sequence[RuleMeaning], overlaps: Sequence[tuple[int, int]]) -> None:
    """Raises PatternError where a family has two patterns for one path that mean different weights. ``overlaps`` are
    the rules that some path fits both."""
    for first, second in overlaps:
        one, other = rules[first], rules[second]
        if not one.alternatives or not other.alternatives:  # a name that is only known
            continue
        for family in sorted({family for family, _ in one.weights} & {family for family, _ in other.weights}):
            mine, theirs = ({weights for weights in rule.weights if weights[0] == family} for rule in (one, other))
            if not mine & theirs:
                raise PatternError(
                    f"[register_family] family {family!r}: '{one.pattern}' and '{other.pattern}' both match some path, "
                    "and they are different weights"
                )


def _require_layout(where: str, path: str, layout: Layout, weights: Weights) -> None:
    for piece in layout.pieces:
        if piece not in weights.sizes:
            raise PatternError(f"{where}: '{path}' holds {piece!r}, expected one of {list(weights.sizes)}")
    if len(set(layout.pieces)) != len(layout.pieces) or not layout.pieces:
        raise PatternError(f"{where}: '{path}' holds {list(layout.pieces)}, expected each piece once")
    if layout.interleaved and len({weights.sizes[piece] for piece in layout.pieces}) > 1:
        raise PatternError(f"{where}: '{path}' interleaves pieces of different sizes")


def _require_one_meaning(where: str, weights: Weights, namings: Sequence[str]) -> None:
    listed: dict[str, str] = {}
    for naming in namings:
        for path, layout in weights.names[naming].items():
            twin = listed.setdefault(path, naming)
            if weights.names[twin][path] != layout:
                raise PatternError(f"{where}: '{path}' is written for {twin} and for {naming}, with other pieces")
