"""CogView 4 and CogView 3 Plus (28 and 30 blocks) by diffusers' names, which trainers write."""

from __future__ import annotations

from .tables import Family, rows, same

_BLOCK = "transformer_blocks.{i}."
_ATTENTION = _BLOCK + "attn1."

FAMILY = Family(
    name="cogview4",
    title="CogView 4",
    base_models=("cogview",),
    widths={_ATTENTION + "to_q": (2560, 4096)},
    weights=(
        rows(
            "q k v",
            diffusers={_ATTENTION + "to_q": "q", _ATTENTION + "to_k": "k", _ATTENTION + "to_v": "v"},
            fused={_ATTENTION + "to_qkv": "q k v"},
        ),
        same(diffusers=_ATTENTION + "to_out.0"),
        same(diffusers=_BLOCK + "ff.net.{m:0.proj|2}"),
        same(diffusers=_BLOCK + "norm1.linear"),
        same(diffusers="patch_embed.{m:proj|text_proj}"),
        same(diffusers="time_condition_embed.{t:timestep_embedder|condition_embedder}.linear_{m:1|2}"),
        same(diffusers="{m:norm_out.linear|proj_out}"),
    ),
)
