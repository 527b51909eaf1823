"""Kandinsky 5 (Lite and Pro, image and video). The checkpoints, ComfyUI, musubi and diffusers use the same names."""

from __future__ import annotations

from .tables import Family, same

_BLOCK = "{side:text|visual}_transformer_blocks.{i}."

FAMILY = Family(
    name="kandinsky5",
    title="Kandinsky 5",
    base_models=("kandinsky",),
    weights=(
        same(diffusers=_BLOCK + "self_attention.{m:to_query|to_key|to_value|out_layer|query_norm|key_norm}"),
        same(
            diffusers="visual_transformer_blocks.{i}.cross_attention."
            "{m:to_query|to_key|to_value|out_layer|query_norm|key_norm}"
        ),
        same(diffusers=_BLOCK + "feed_forward.{m:in_layer|out_layer}"),
        same(diffusers=_BLOCK + "{m:text_modulation|visual_modulation}.out_layer"),
        same(diffusers="time_embeddings.{m:in_layer|out_layer}"),
        same(diffusers="{m:text_embeddings|pooled_text_embeddings}.{n:in_layer|norm}"),
        same(diffusers="visual_embeddings.in_layer"),
        same(diffusers="out_layer.{m:modulation.out_layer|out_layer}"),
    ),
)
