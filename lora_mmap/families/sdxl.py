"""Stable Diffusion XL: three levels, transformers in the coarser two, text of CLIP-L and OpenCLIP-G (2048 wide), sizes
embedded. Its refiner has four levels, transformers in the middle two, text of OpenCLIP-G alone (1280 wide)."""

from __future__ import annotations

from .tables import Family, same
from .unet import NAMINGS, unet

FAMILY = Family(
    name="sdxl",
    title="Stable Diffusion XL",
    namings=NAMINGS,
    written={"kohya": "native", "comfyui": "native"},
    widths={
        "input_blocks.4.1.transformer_blocks.0.attn2.to_k": (2048, 1280),
        "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k": (2048, 1280),
    },
    weights=(
        *unet(levels=3, attention=(1, 2)),
        *unet(levels=4, attention=(1, 2)),
        same(native="label_emb.0.0", diffusers="add_embedding.linear_1"),
        same(native="label_emb.0.2", diffusers="add_embedding.linear_2"),
    ),
)
