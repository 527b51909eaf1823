"""Strengths as callers give them: one number, one per component, or one per adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..entries import finite_strength
from ..errors import ArgumentError
from .parts import Part

Scale = float | Mapping[str, float] | Sequence[float] | None
Scales = dict[str, float]  # by the name of the part


def scales_of(function: str, scale: Scale, parts: Sequence[Part], what: str) -> Scales:
    """The strength for each part: the same for all, by name (1.0 for those left out), or in their order.

    Raises ArgumentError for names that no part has, for a list of another length, and for what is no finite number.
    """
    names = [part.name for part in parts]
    if scale is None:
        return dict.fromkeys(names, 1.0)
    if isinstance(scale, Mapping):
        unknown = [name for name in scale if name not in names]
        if unknown:
            raise ArgumentError(
                f"[{function}] {what} has a strength for {unknown[0]!r}, expected some of {', '.join(map(repr, names))}"
            )
        return {
            name: 1.0 if scale.get(name) is None else finite_strength(function, scale[name], f"{what}[{name!r}]")
            for name in names
        }
    if isinstance(scale, (list, tuple)):
        if len(scale) != len(names):
            raise ArgumentError(
                f"[{function}] {what} has {len(scale)} strengths, expected {len(names)}: one for each of "
                f"{', '.join(map(repr, names))}"
            )
        return {
            name: finite_strength(function, one, f"{what}[{position}]")
            for position, (name, one) in enumerate(zip(names, scale, strict=True))
        }
    return dict.fromkeys(names, finite_strength(function, scale, what))
