"""The families that ship, in the order in which ties between them are settled."""

from __future__ import annotations

from . import (
    animatediff,
    auraflow,
    bert,
    chatglm,
    clip,
    flux1,
    gpt2,
    hidream,
    language_models,
    pixart,
    qwen_image,
    sd2,
    sd3,
    sd15,
    sdxl,
    stable_cascade,
    t5,
    vision,
)
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
    stable_cascade.FAMILY,
    animatediff.FAMILY,
    clip.FAMILY,
    t5.FAMILY,
    language_models.FAMILY,
    vision.FAMILY,
    bert.FAMILY,
    chatglm.FAMILY,
    gpt2.FAMILY,
)
