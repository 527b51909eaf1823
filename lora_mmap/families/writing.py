"""Names for writing: what a dialect's files call a module of some naming. The same tables, read the other way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..errors import ArgumentError
from .compiled import Tables, key_tables
from .dialects import DIALECTS, Dialect
from .module_paths import path_pattern
from .placement import WHOLE, Placement, placement
from .tables import Family, Layout, Weights


@dataclass(frozen=True)
class Written:
    """One module in a file: its key up to the factor's ending, and its ``path``, whatever stands before it.

    ``placement`` says where in it the rows (columns) of the module at hand lie: ``target`` is the file's matrix,
    ``source`` that of the module at hand.
    """

    stem: str
    path: str
    placement: Placement
    dialect: Dialect

    @property
    def down(self) -> str:
        """The key of the down factor (A, [rank, cols])."""
        return f"{self.stem}.{self.dialect.down}"

    @property
    def up(self) -> str:
        """The key of the up factor (B, [rows, rank])."""
        return f"{self.stem}.{self.dialect.up}"


def spell(
    path: str, dialect: str, family: str, component: str = "denoiser", shape: tuple[int, int] | None = None
) -> list[Written]:
    """What files of a dialect call the module that a file or a model of ``family`` calls ``path``, in any naming.

    ``path`` is dotted or flattened, without a file's own prefix. ``dialect`` is ``kohya``, ``diffusers``, ``peft`` or
    ``comfyui``. ``family`` is the whole model's (``sdxl``) and ``component`` a part of its pipeline (``denoiser``,
    ``text_encoder_2``). ``shape`` is [rows, cols] of the module's matrix (convolutions flattened); needed where one
    name stands for several things, such as the text's last modulation of Stable Diffusion 3.

    Returns one entry, or several where the files split what the module has together. A module that has no name in the
    naming that the dialect writes keeps its own. Raises ArgumentError for a dialect, family or component that does not
    exist, for a path that the family does not have, and where ``shape`` is needed and missing or fits nothing.
    """
    tables = key_tables()
    style, whole = _look_up(tables, dialect, family)
    part = _part(tables, whole, component)
    found = list(_finds(tables, part, path))
    if not found:
        raise ArgumentError(f"[spell] {part.title} has no module '{path}'")
    fitting = [module for module in found if shape is None or module.fits(shape)]
    if not fitting:
        raise ArgumentError(
            f"[spell] {part.title}: '{path}' of shape {list(shape or ())} cannot be cut into its pieces"
        )
    namings = _namings(part, style)
    if namings:
        answers = list(dict.fromkeys(tuple(module.renamed(namings)) for module in fitting))
    else:
        answers = [((fitting[0].as_given(keep_level=style.name in ("diffusers", "peft")), WHOLE),)]
    if len(answers) > 1:
        ways = " or ".join(", ".join(name for name, _ in answer) for answer in answers)
        told = "say which by shape=" if shape is None else f"shape {list(shape)} fits each"
        raise ArgumentError(f"[spell] {part.title}: '{path}' may be cut in several ways (as {ways}); {told}")
    return [Written(style.stem(name, component, whole, part), name, place, style) for name, place in answers[0]]


def _look_up(tables: Tables, dialect: str, family: str) -> tuple[Dialect, Family]:
    if dialect not in DIALECTS:
        raise ArgumentError(f"[spell] dialect is {dialect!r}, expected one of {', '.join(map(repr, DIALECTS))}")
    if family not in tables.families:
        raise ArgumentError(f"[spell] family is {family!r}, expected one of {', '.join(map(repr, tables.families))}")
    return DIALECTS[dialect], tables.families[family]


def _part(tables: Tables, family: Family, component: str) -> Family:
    """The table of one component of a family's pipeline."""
    if component in family.components:
        return family
    encoders = family.text_encoders or {}
    if component not in encoders:
        known = ", ".join(map(repr, (*family.components, *encoders)))
        raise ArgumentError(f"[spell] component of {family.title} is {component!r}, expected one of {known}")
    return tables.families[encoders[component].family]


def _namings(part: Family, style: Dialect) -> tuple[str, ...]:
    """The namings to look for, in this order: many weights have a line in one of them only, as all say the same."""
    wanted = (part.written or {}).get(style.name, style.naming).split()
    if not wanted:
        return ()
    return (*wanted, "diffusers", "native") if "diffusers" in wanted else (*wanted, "native", "diffusers")


@dataclass(frozen=True)
class _Found:
    """What a path may be: a weight's line in a table, and what of it the path holds. ``level``: what stands before."""

    weights: Weights
    layout: Layout
    path: str
    captures: dict[str, str]
    level: str

    def fits(self, shape: tuple[int, int]) -> bool:
        """True when a matrix of this shape can be cut into the pieces."""
        units = sum(self.weights.sizes[piece] for piece in self.layout.pieces)
        along = shape[0] if self.weights.axis == "rows" else shape[1]
        return along % units == 0 and not (self.weights.square and shape[0] != shape[1] * units)

    def renamed(self, namings: Iterable[str]) -> Iterator[tuple[str, Placement]]:
        """Its names in the first naming that has names for all of it, or its own."""
        for naming in namings:
            cover = self._cover(self.weights.names.get(naming, {}))
            if cover:
                for path, there in cover.items():
                    place = placement(self.weights, self.layout, there)
                    yield self._filled(path), WHOLE if place.is_whole else place
                return
        yield self.as_given(), WHOLE

    def as_given(self, keep_level: bool = False) -> str:
        """Its own name, dotted."""
        return (self.level if keep_level and self.level.endswith(".") else "") + self._filled(self.path)

    def _filled(self, path: str) -> str:
        name = path_pattern(path).filled(self.captures)
        if name is None:
            raise ArgumentError(f"[spell] '{path}' has no index for what '{self.path}' counts as {self.captures}")
        return name

    def _cover(self, paths: Mapping[str, Layout]) -> dict[str, Layout]:
        """The paths that hold all of it; of two that hold the same, the first. Empty where some piece has no path."""
        missing = set(self.layout.pieces)
        cover = {}
        for path, there in paths.items():
            if missing.intersection(there.pieces):
                cover[path] = there
                missing.difference_update(there.pieces)
        return {} if missing else cover


def _finds(tables: Tables, family: Family, path: str) -> Iterator[_Found]:
    """What ``path`` may be in this family, as it stands or below levels that models wrap around their parts."""
    (group,) = tables.grammar.classify([path + ".alpha"]).groups()
    offsets = sorted({offset for offset, _ in group[2]})
    numbers = {number for rule in group[4] for name, number in tables.rules[rule].weights if name == family.name}
    for number in sorted(numbers):
        weights = family.weights[number]
        for pattern, layout in _own_paths(family, weights):
            for offset in offsets:
                captures = path_pattern(pattern).captures(path[offset:])
                if captures is not None:
                    yield _Found(weights, layout, pattern, captures, path[:offset])


def _own_paths(family: Family, weights: Weights) -> Iterator[tuple[str, Layout]]:
    """The paths of all namings. One that more than the path tells (a mark of the model, an adapter name in the file)
    does not count where another naming has the same path."""
    in_model = {naming.name for naming in family.namings if naming.beside}
    in_file = {naming.name for naming in family.namings if naming.infix}
    seen: set[str] = set()
    for told in (set(weights.names) - in_model - in_file, in_model, in_file):
        paths = {
            path: layout for naming in weights.names if naming in told for path, layout in weights.names[naming].items()
        }
        yield from ((path, layout) for path, layout in paths.items() if path not in seen)
        seen |= paths.keys()
