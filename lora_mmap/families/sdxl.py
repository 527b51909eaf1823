"""Stable Diffusion XL: three levels, transformers in the coarser two, text of CLIP-L and OpenCLIP-G (2048 wide), sizes
embedded. Its refiner has four levels, transformers in the middle two, text of OpenCLIP-G alone (1280 wide)."""

from __future__ import annotations

from .tables import Family, TextEncoder, same
from .unet import NAMINGS, unet

_SIZES = (
    same(native="label_emb.0.0", diffusers="add_embedding.linear_1"),
    same(native="label_emb.0.2", diffusers="add_embedding.linear_2"),
)
_TEXT_WIDTH_AT = (
    "input_blocks.4.1.transformer_blocks.0.attn2.to_k",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
)
_CLIP_L, _CLIP_G = TextEncoder("clip", "clip_l.transformer"), TextEncoder("clip", "clip_g.transformer")

FAMILY = Family(
    name="sdxl",
    title="Stable Diffusion XL",
    namings=NAMINGS,
    is_unet=True,
    text_encoders={"text_encoder": _CLIP_L, "text_encoder_2": _CLIP_G},
    widths=dict.fromkeys(_TEXT_WIDTH_AT, (2048,)),
    weights=(*unet(levels=3, attention=(1, 2)), *_SIZES),
)

REFINER = Family(
    name="sdxl_refiner",
    title="Stable Diffusion XL refiner",
    namings=NAMINGS,
    is_unet=True,
    text_encoders={"text_encoder_2": _CLIP_G},
    widths=dict.fromkeys(_TEXT_WIDTH_AT, (1280,)),
    weights=(*unet(levels=4, attention=(1, 2)), *_SIZES),
)
