"""The refiner of Stable Diffusion XL: four levels, transformers in the middle two, text of OpenCLIP-G alone (1280
wide), and the image's sizes embedded."""

from __future__ import annotations

from .tables import Family, TextEncoder, same
from .unet import NAMINGS, UNET, upsamplers

FAMILY = Family(
    name="sdxl_refiner",
    title="Stable Diffusion XL refiner",
    namings=NAMINGS,
    text_encoders={"text_encoder_2": TextEncoder("clip", "clip_g.transformer")},
    is_unet=True,
    widths={
        "input_blocks.4.1.transformer_blocks.0.attn2.to_k": (1280,),
        "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k": (1280,),
    },
    weights=(
        *UNET,
        *upsamplers((False, True, True)),
        same(native="label_emb.0.0", diffusers="add_embedding.linear_1"),
        same(native="label_emb.0.2", diffusers="add_embedding.linear_2"),
    ),
)
