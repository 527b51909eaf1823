"""What an algorithm makes of one parameter of a module."""

from __future__ import annotations

from dataclasses import dataclass

from .formula import Formula
from .recognised import Form


@dataclass(frozen=True, slots=True)
class Part:
    """The change of one parameter: who makes it, the matrix it belongs to, its rank and its scale. Without a
    ``formula`` it cannot be made yet."""

    algorithm: str
    form: Form
    rank: int | None = None
    scale: float | None = None
    scale_source: str = ""
    detail: str = ""
    formula: Formula | None = None
