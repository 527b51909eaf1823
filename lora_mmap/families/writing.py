"""Names for writing: what a dialect's files call a module of some naming. The same tables, read the other way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from ..errors import ArgumentError
from .compiled import key_tables
from .counting import counting
from .placement import WHOLE, Placement, placement
from .tables import Family, Layout, Weights

# Dialect -> (prefix by component, are paths flattened, factor suffixes, the naming they write unless a family says).
_TEXT = ("text_encoder", "text_encoder_2", "text_encoder_3")
_KOHYA = {"denoiser": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_", _TEXT[2]: "lora_te3_"}
_DIFFUSERS = {"denoiser": "transformer.", **{name: f"{name}." for name in _TEXT}}
_COMFYUI = {
    "denoiser": "diffusion_model.",
    "text_encoder": "text_encoders.clip_l.transformer.",
    "text_encoder_2": "text_encoders.clip_g.transformer.",
    "text_encoder_3": "text_encoders.t5xxl.transformer.",
}
_UP_DOWN = ("lora_down.weight", "lora_up.weight")
_A_B = ("lora_A.weight", "lora_B.weight")
_BRACES = re.compile(r"\{([^}]*)\}")


@dataclass(frozen=True)
class Dialect:
    """How one kind of files writes a key: ``prefix`` by component, then the path, then the factor's ending."""

    prefixes: dict[str, str]
    flattened: bool
    factors: tuple[str, str]  # of the down factor and of the up factor
    naming: str  # unless a family says otherwise

    def stem(self, path: str, component: str, family: Family) -> str:
        """The key's beginning, up to the factor's ending."""
        prefix = self.prefixes.get(component, "")
        if prefix == "transformer." and family.is_unet:
            prefix = "unet."
        return prefix + (path.replace(".", "_") if self.flattened else path)


DIALECTS: dict[str, Dialect] = {
    "kohya": Dialect(_KOHYA, True, _UP_DOWN, "diffusers"),
    "diffusers": Dialect(_DIFFUSERS, False, _A_B, "diffusers"),
    "peft": Dialect(dict.fromkeys(_DIFFUSERS, "base_model.model."), False, _A_B, "diffusers"),
    "comfyui": Dialect(_COMFYUI, False, _A_B, "native"),
}


@dataclass(frozen=True)
class Written:
    """One module in a file. ``placement`` says where the rows (columns) of the module at hand lie in the file's."""

    stem: str
    path: str
    placement: Placement

    def key(self, dialect: str, factor: str) -> str:
        """The key of its ``"down"`` or ``"up"`` factor."""
        return f"{self.stem}.{DIALECTS[dialect].factors[factor == 'up']}"


def spell(path: str, dialect: str, family: str, component: str = "denoiser") -> list[Written]:
    """What files of a dialect call the module that a model of ``family`` calls ``path``, in whatever naming.

    Several where the files split what the model fuses. ``dialect`` is one of ``kohya``, ``diffusers``, ``peft``,
    ``comfyui``. Raises ArgumentError for a dialect or family that does not exist and for a path that it does not know.
    """
    families = key_tables().families
    if dialect not in DIALECTS:
        raise ArgumentError(f"[spell] dialect is {dialect!r}, expected one of {', '.join(map(repr, DIALECTS))}")
    if family not in families:
        raise ArgumentError(f"[spell] family is {family!r}, expected one of {', '.join(map(repr, families))}")
    table, style = families[family], DIALECTS[dialect]
    naming = (table.written or {}).get(dialect, style.naming)
    for weights, layout, captures in _finds(table, path):
        written = list(_written(weights, layout, naming))
        if not written:  # this weight has one naming only
            written = [(path, WHOLE)]
        return [
            Written(style.stem(_filled(name, captures), component, table), _filled(name, captures), place)
            for name, place in written
        ]
    raise ArgumentError(f"[spell] {table.title} has no module '{path}'")


def _finds(family: Family, path: str) -> Iterator[tuple[Weights, Layout, dict[str, str]]]:
    for weights in family.weights:
        for paths in weights.names.values():
            for pattern, layout in paths.items():
                captures = _captures(pattern, path)
                if captures is not None:
                    yield weights, layout, captures


def _written(weights: Weights, layout: Layout, naming: str) -> Iterator[tuple[str, Placement]]:
    """The names of a naming that hold pieces of ``layout``, each with where those lie in it."""
    for name, there in weights.names.get(naming, {}).items():
        if set(there.pieces) & set(layout.pieces):
            yield name, placement(weights, layout, there)


def _captures(pattern: str, path: str) -> dict[str, str] | None:
    found = _regex(pattern).fullmatch(path)
    if found is None:
        return None
    captures = found.groupdict()
    for formula in filter(None, map(counting, _BRACES.findall(pattern))):
        counters = formula.split(int(captures[formula.high]))
        if counters is None:
            return None
        captures |= counters
    return captures


def _filled(pattern: str, captures: dict[str, str]) -> str:
    def fill(found: re.Match[str]) -> str:
        formula = counting(found[1])
        text = formula.join(captures) if formula else captures[found[1].partition(":")[0]]
        if text is None:
            raise ArgumentError(f"[spell] '{pattern}' has no index for {captures}")
        return text

    return _BRACES.sub(fill, pattern)


@lru_cache(maxsize=4096)
def _regex(pattern: str) -> re.Pattern[str]:
    """The pattern language of the tables as a regular expression over dotted paths."""

    def capture(found: re.Match[str]) -> str:
        formula = counting(found[1])
        if formula:
            return rf"(?P<{formula.high}>\d+)"
        name, _, kind = found[1].partition(":")
        if not kind:
            return rf"(?P<{name}>\d+)"
        if kind == "*":
            return rf"(?P<{name}>[^.]+)"
        return rf"(?P<{name}>{'|'.join(map(re.escape, kind.split('|')))})"

    pieces = re.split(r"(\{[^}]*\}|\[|\])", pattern)
    text = ""
    for piece in pieces:
        if piece.startswith("{"):
            text += _BRACES.sub(capture, piece)
        else:
            text += {"[": "(?:", "]": ")?"}.get(piece, re.escape(piece))
    return re.compile(text)
