"""The families that ship, in the order in which ties between them are settled."""

from __future__ import annotations

from . import (
    ace_step,
    anima,
    bria,
    cogvideox,
    cogview4,
    cosmos1,
    ernie_image,
    flux1,
    hunyuan_dit,
    ideogram4,
    kandinsky5,
    krea2,
    ltx,
    ltx2,
    mochi,
    omnigen2,
    qwen_image,
    sana,
    wan,
)
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
    mochi.FAMILY,
    sana.FAMILY,
    cogvideox.FAMILY,
    cogview4.FAMILY,
    hunyuan_dit.FAMILY,
    ernie_image.FAMILY,
    omnigen2.FAMILY,
    omnigen2.OMNIGEN1,
    ace_step.FAMILY,
    bria.FAMILY,
    bria.FIBO2,
)
