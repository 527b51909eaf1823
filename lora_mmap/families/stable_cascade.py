"""Stable Cascade: the prior (stage C) and the decoder (stage B). Blocks of several kinds are counted through within a
level.

Stability's checkpoints (``original``) have q, k and v in one parameter, ``in_proj_weight`` of torch's attention, which
files may name in full (``torch``). ComfyUI (``native``, and trainers who follow it) and diffusers have them apart, at
two different places.
"""

from __future__ import annotations

from .tables import Family, Naming, rows, same

_BLOCK = "{side:down|up}_blocks.{i}.{j}."
_ATTENTION = _BLOCK + "attention."

FAMILY = Family(
    name="stable_cascade",
    title="Stable Cascade",
    namings=(Naming("torch", in_models=False),),
    is_unet=True,
    weights=(
        rows(
            "q k v",
            diffusers={f"{_ATTENTION}to_{piece}": piece for piece in "qkv"},
            native={f"{_ATTENTION}attn.to_{piece}": piece for piece in "qkv"},
            original={_ATTENTION + "attn.in_proj": "q k v"},
            torch={_ATTENTION + "attn.in_proj_weight": "q k v"},
            fused={_ATTENTION + "to_qkv": "q k v"},
        ),
        same(diffusers=_ATTENTION + "to_out.0", native=_ATTENTION + "attn.out_proj"),
        same(diffusers=_BLOCK + "{m:depthwise|kv_mapper.1|mapper|mapper_sca|mapper_crp}"),
        same(diffusers=_BLOCK + "channelwise.{m:0|4|2.gamma|2.beta}"),
        same(diffusers="{side:down_downscalers|up_upscalers}.{i}.{j}[.blocks.{k}]"),
        same(diffusers="{side:down|up}_repeat_mappers.{i}.{j}"),
        same(diffusers="{m:embedding|clf|effnet_mapper|pixels_mapper}.{i}"),
        same(diffusers="{m:clip_txt_mapper|clip_img_mapper}"),
        same(diffusers="clip_txt_pooled_mapper", native=("clip_txt_pooled_mapper", "clip_mapper")),
    ),
)
