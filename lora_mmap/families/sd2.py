"""Stable Diffusion 2.x: the UNet of 1.x with the text of OpenCLIP-H (1024 wide). Its unCLIP variants take an image's
embedding, its upscaler a noise level."""

from __future__ import annotations

from .tables import Family, TextEncoder, same
from .unet import NAMINGS, UNET, text_width, upsamplers

FAMILY = Family(
    name="sd2",
    title="Stable Diffusion 2.x",
    namings=NAMINGS,
    written={"kohya": "diffusers"},
    is_unet=True,
    text_encoders={"text_encoder": TextEncoder("clip", "clip_h.transformer")},
    widths=text_width(1024),
    weights=(
        *UNET,
        *upsamplers((False, True, True)),
        same(native="label_emb", diffusers="class_embedding"),
        same(native="label_emb.0.0", diffusers="class_embedding.linear_1"),
        same(native="label_emb.0.2", diffusers="class_embedding.linear_2"),
    ),
)
