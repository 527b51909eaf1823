"""Qwen-Image 2.1 (blocks of width 4096 for one joint stream, one modulation for all of them, a gated MLP). ComfyUI
computes the MLP's gate and its value in one matrix, gate first."""

from __future__ import annotations

from .tables import Family, rows, same

_BLOCK = "transformer_blocks.{i}."
_ATTENTION = _BLOCK + "attn."

FAMILY = Family(
    name="qwen_image21",
    title="Qwen-Image 2.1",
    widths={_ATTENTION + "to_q": (4096,)},
    written={"comfyui": "diffusers"},
    weights=(
        rows(
            "q k v",
            diffusers={_ATTENTION + "to_q": "q", _ATTENTION + "to_k": "k", _ATTENTION + "to_v": "v"},
            fused={_ATTENTION + "to_qkv": "q k v"},
        ),
        same(diffusers=_ATTENTION + "to_out.0"),
        same(diffusers=_ATTENTION + "norm_{m:q|k}"),
        rows(
            "gate value",
            native={_BLOCK + "img_mlp.gate_up": "gate value"},
            diffusers={_BLOCK + "img_mlp.gate_layer": "gate", _BLOCK + "img_mlp.proj": "value"},
        ),
        same(diffusers=_BLOCK + "img_mlp.out"),
        same(diffusers=_BLOCK + "img_norm{m:1|2}"),
        same(diffusers="txt_in.{m:text_norm|in_layer|out_layer}"),
        same(diffusers="{m:img_in|modulation.1|proj_out|norm_out.linear|norm_out.norm}"),
        same(diffusers="time_text_embed.timestep_embedder.linear_{m:1|2}"),
    ),
)
