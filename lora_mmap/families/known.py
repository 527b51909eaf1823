"""The families that ship, in the order in which ties between them are settled."""

from __future__ import annotations

from . import auraflow, flux1, hidream, pixart, qwen_image, sd2, sd3, sd15, sdxl
from .tables import Family

FAMILIES: tuple[Family, ...] = (
    flux1.FAMILY,
    qwen_image.FAMILY,
    sdxl.FAMILY,
    sd15.FAMILY,
    sd2.FAMILY,
    sd3.FAMILY,
    auraflow.FAMILY,
    pixart.FAMILY,
    hidream.FAMILY,
)
