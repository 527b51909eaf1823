"""Qwen-Image (60 blocks, width 3072; Edit, Layered). diffusers and ComfyUI use the same names; fused projections come
from diffusers' ``fuse_qkv_projections`` (``to_qkv``, ``to_added_qkv``) and from Nunchaku (``to_qkv``,
``add_qkv_proj``), whose modulation keeps the six vectors of a channel together."""

from __future__ import annotations

from .tables import Family, Naming, TextEncoder, rows, same

_BLOCK = "transformer_blocks.{i}."
_ATTENTION = _BLOCK + "attn."
_MODULATION = "shift1 scale1 gate1 shift2 scale2 gate2"

FAMILY = Family(
    name="qwen_image",
    title="Qwen-Image",
    text_encoders={"text_encoder": TextEncoder("language_model", "qwen25_7b.transformer.model")},
    namings=(Naming("nunchaku", beside="transformer_blocks.0.img_mod.1.qweight"),),
    widths={_ATTENTION + "to_q": (3072,)},
    written={"comfyui": "diffusers"},
    weights=(
        rows(
            "q k v",
            diffusers={_ATTENTION + "to_q": "q", _ATTENTION + "to_k": "k", _ATTENTION + "to_v": "v"},
            fused={_ATTENTION + "to_qkv": "q k v"},
            nunchaku={_ATTENTION + "to_qkv": "q k v"},
        ),
        rows(
            "q k v",
            diffusers={
                _ATTENTION + "add_q_proj": "q",
                _ATTENTION + "add_k_proj": "k",
                _ATTENTION + "add_v_proj": "v",
            },
            fused={_ATTENTION + "to_added_qkv": "q k v", _ATTENTION + "add_qkv_proj": "q k v"},
        ),
        same(diffusers=_ATTENTION + "{m:to_out.0|to_add_out}"),
        same(diffusers=_ATTENTION + "{m:norm_q|norm_k|norm_added_q|norm_added_k}"),
        same(diffusers=_BLOCK + "{side:img|txt}_mlp.net.{m:0.proj|2}"),
        rows(
            _MODULATION,
            diffusers={_BLOCK + "{side:img|txt}_mod.1": _MODULATION},
            nunchaku={_BLOCK + "{side:img|txt}_mod.1": _MODULATION + " interleaved"},
        ),
        same(diffusers=_BLOCK + "{side:img|txt}_{m:norm1|norm2}"),
        same(diffusers="{m:img_in|txt_in|txt_norm|proj_out|norm_out.linear|norm_out.norm}"),
        same(diffusers="time_text_embed.timestep_embedder.linear_{m:1|2}"),
        same(diffusers="time_text_embed.addition_t_embedding"),
        same(diffusers="controlnet_x_embedder"),
        same(diffusers="controlnet_blocks.{i}"),
    ),
)
