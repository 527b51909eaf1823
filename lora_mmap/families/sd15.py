"""Stable Diffusion 1.x: four levels, transformers in the finer three, text of CLIP-L (768 wide)."""

from __future__ import annotations

from .tables import Family, TextEncoder
from .unet import NAMINGS, UNET, text_width, upsamplers

FAMILY = Family(
    name="sd15",
    title="Stable Diffusion 1.x",
    namings=NAMINGS,
    written={"kohya": "diffusers"},
    is_unet=True,
    text_encoders={"text_encoder": TextEncoder("clip", "clip_l.transformer")},
    widths=text_width(768),
    weights=(*UNET, *upsamplers((False, True, True))),
)
