"""The families that ship, in the order in which ties between them are settled."""

from __future__ import annotations

from . import flux1, qwen_image, wan
from .tables import Family

FAMILIES: tuple[Family, ...] = (
    flux1.FAMILY,
    qwen_image.FAMILY,
    wan.FAMILY,
)
