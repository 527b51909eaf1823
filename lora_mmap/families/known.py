"""The families that ship, in the order in which ties between them are settled."""

from __future__ import annotations

from . import anima, cosmos1, flux1, ideogram4, kandinsky5, krea2, ltx, ltx2, qwen_image, wan
from .tables import Family

FAMILIES: tuple[Family, ...] = (
    flux1.FAMILY,
    qwen_image.FAMILY,
    wan.FAMILY,
    ltx.FAMILY,
    ltx2.FAMILY,
    krea2.FAMILY,
    ideogram4.FAMILY,
    kandinsky5.FAMILY,
    anima.FAMILY,
    cosmos1.FAMILY,
)
