"""Qwen-Image (60 blocks, width 3072). diffusers and ComfyUI use the same names; fused projections come from diffusers'
``fuse_qkv_projections`` (``to_qkv``, ``to_added_qkv``) and from Nunchaku (``to_qkv``, ``add_qkv_proj``)."""

from __future__ import annotations

from .tables import Family, Rows, Same

_ATTENTION = "transformer_blocks.{i}.attn."
_ADDED = tuple(_ATTENTION + part for part in ("add_q_proj", "add_k_proj", "add_v_proj"))

FAMILY = Family(
    name="qwen_image",
    title="Qwen-Image",
    marks=(
        "transformer_blocks.{i}.{side:img|txt}_mlp.net.0.proj",
        "transformer_blocks.{i}.{side:img|txt}_mlp.net.2",
        "transformer_blocks.{i}.{side:img|txt}_mod.1",
    ),
    layouts=(
        Rows(_ATTENTION + "to_qkv", tuple(_ATTENTION + part for part in ("to_q", "to_k", "to_v"))),
        Rows(_ATTENTION + "add_qkv_proj", _ADDED),
        Rows(_ATTENTION + "to_added_qkv", _ADDED),
        Same((_ATTENTION + "add_qkv_proj", _ATTENTION + "to_added_qkv")),
    ),
)
