"""The refiner of Stable Diffusion XL: four levels, transformers in the middle two, text of OpenCLIP-G alone (1280
wide), and the image's sizes embedded."""

from __future__ import annotations

from .tables import Family, TextEncoder, same
from .unet import NAMINGS, UNET, text_width, upsamplers

FAMILY = Family(
    name="sdxl_refiner",
    title="Stable Diffusion XL refiner",
    namings=NAMINGS,
    text_encoders={"text_encoder_2": TextEncoder("clip", "clip_g.transformer")},
    is_unet=True,
    widths=text_width(1280),
    weights=(
        *UNET,
        *upsamplers((False, True, True)),
        same(native="label_emb.0.0", diffusers="add_embedding.linear_1"),
        same(native="label_emb.0.2", diffusers="add_embedding.linear_2"),
    ),
)
