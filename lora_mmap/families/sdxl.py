"""Stable Diffusion XL: three levels, transformers in the coarser two, text of CLIP-L and OpenCLIP-G (2048 wide), and
the image's sizes embedded."""

from __future__ import annotations

from .tables import Family, TextEncoder, same
from .unet import NAMINGS, UNET, text_width, upsamplers

FAMILY = Family(
    name="sdxl",
    title="Stable Diffusion XL",
    namings=NAMINGS,
    text_encoders={
        "text_encoder": TextEncoder("clip", "clip_l.transformer"),
        "text_encoder_2": TextEncoder("clip", "clip_g.transformer"),
    },
    is_unet=True,
    widths=text_width(2048),
    weights=(
        *UNET,
        *upsamplers((True, True)),
        same(native="label_emb.0.0", diffusers="add_embedding.linear_1"),
        same(native="label_emb.0.2", diffusers="add_embedding.linear_2"),
    ),
)
