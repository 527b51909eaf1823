"""The families that ship, in the order in which ties between them are settled."""

from __future__ import annotations

from . import (
    chroma,
    flux1,
    flux2,
    hunyuan_image,
    hunyuan_video,
    hunyuan_video15,
    lumina2,
    minimax_h3,
    qwen_image,
    qwen_image21,
    z_image,
)
from .tables import Family

FAMILIES: tuple[Family, ...] = (
    flux1.FAMILY,
    flux2.FAMILY,
    chroma.FAMILY,
    qwen_image.FAMILY,
    qwen_image21.FAMILY,
    z_image.FAMILY,
    lumina2.FAMILY,
    hunyuan_video.FAMILY,
    hunyuan_video15.FAMILY,
    hunyuan_image.FAMILY,
    minimax_h3.FAMILY,
)
