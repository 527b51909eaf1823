"""Ernie-Image (36 layers, width 4096). The checkpoint, ComfyUI and diffusers use the same names."""

from __future__ import annotations

from .tables import Family, same

_LAYER = "layers.{i}."

FAMILY = Family(
    name="ernie_image",
    title="Ernie-Image",
    base_models=("ernie",),
    weights=(
        same(diffusers=_LAYER + "self_attention.{m:to_q|to_k|to_v|to_out.0|norm_q|norm_k}"),
        same(diffusers=_LAYER + "mlp.{m:gate_proj|up_proj|linear_fc2}"),
        same(diffusers=_LAYER + "{m:adaLN_sa_ln|adaLN_mlp_ln}"),
        same(diffusers="{m:x_embedder.proj|text_proj|adaLN_modulation.1|final_norm.linear|final_linear}"),
        same(diffusers="time_embedding.linear_{m:1|2}"),
    ),
)
