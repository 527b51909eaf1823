"""Chroma (Flux.1's blocks without modulation of their own; one small network, the distilled guidance layer, makes the
modulation of all blocks) and Chroma Radiance, which paints pixels through NeRF blocks."""

from __future__ import annotations

from . import flux1
from .tables import Family, TextEncoder, same

_GUIDANCE = "distilled_guidance_layer."

_DISTILLED_GUIDANCE = (
    same(native=_GUIDANCE + "{m:in_proj|out_proj}", diffusers=_GUIDANCE + "{m:in_proj|out_proj}"),
    same(native=_GUIDANCE + "layers.{i}.in_layer", diffusers=_GUIDANCE + "layers.{i}.linear_1"),
    same(native=_GUIDANCE + "layers.{i}.out_layer", diffusers=_GUIDANCE + "layers.{i}.linear_2"),
    same(native=_GUIDANCE + "norms.{i}", diffusers=_GUIDANCE + "norms.{i}"),
)

_RADIANCE = (
    same(native="img_in_patch"),
    same(native="nerf_image_embedder.embedder.0"),
    same(native="nerf_blocks.{i}.{m:param_generator|norm}"),
    same(native="nerf_final_layer.{m:norm|linear}"),
    same(native="nerf_final_layer_conv.{m:norm|conv}"),
)

FAMILY = Family(
    name="chroma",
    title="Chroma",
    namings=flux1.NAMINGS,
    widths=flux1.WIDTHS,
    text_encoders={"text_encoder": TextEncoder("t5", "t5xxl.transformer")},
    weights=(*flux1.DOUBLE_BLOCKS, *flux1.SINGLE_BLOCKS, *_DISTILLED_GUIDANCE, *flux1.ENDS, *_RADIANCE),
)
