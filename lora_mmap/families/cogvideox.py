"""CogVideoX and ConsisID (2B: 30 blocks of width 1920, 5B: 42 of 3072) by diffusers' names, which trainers write."""

from __future__ import annotations

from .tables import Family, rows, same

_BLOCK = "transformer_blocks.{i}."
_ATTENTION = _BLOCK + "attn1."

FAMILY = Family(
    name="cogvideox",
    title="CogVideoX",
    widths={_ATTENTION + "to_q": (1920, 3072)},
    weights=(
        rows(
            "q k v",
            diffusers={_ATTENTION + "to_q": "q", _ATTENTION + "to_k": "k", _ATTENTION + "to_v": "v"},
            fused={_ATTENTION + "to_qkv": "q k v"},
        ),
        same(diffusers=_ATTENTION + "{m:to_out.0|norm_q|norm_k}"),
        same(diffusers=_BLOCK + "ff.net.{m:0.proj|2}"),
        same(diffusers=_BLOCK + "{n:norm1|norm2}.{m:linear|norm}"),
        same(diffusers="patch_embed.{m:proj|text_proj|pos_embedding}"),
        same(diffusers="{t:time_embedding|ofs_embedding}.linear_{m:1|2}"),
        same(diffusers="{m:norm_final|norm_out.linear|norm_out.norm|proj_out}"),
    ),
)
