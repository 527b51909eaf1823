"""Ideogram 4 (34 layers, width 4608). The checkpoint and ComfyUI fuse q, k and v; diffusers has them apart and
calls the conditional of its two transformers ``conditional_transformer`` in files."""

from __future__ import annotations

from .tables import Family, rows, same

_LAYER = "layers.{i}."
_ATTENTION = _LAYER + "attention."

FAMILY = Family(
    name="ideogram4",
    title="Ideogram 4",
    weights=(
        rows(
            "q k v",
            native={_ATTENTION + "qkv": "q k v"},
            diffusers={_ATTENTION + "to_q": "q", _ATTENTION + "to_k": "k", _ATTENTION + "to_v": "v"},
        ),
        same(native=_ATTENTION + "o", diffusers=_ATTENTION + "to_out.0"),
        same(native=_ATTENTION + "{m:norm_q|norm_k}"),
        same(native=_LAYER + "feed_forward.{m:w1|w2|w3}"),
        same(native=_LAYER + "adaln_modulation"),
        same(native=_LAYER + "{m:attention_norm1|attention_norm2|ffn_norm1|ffn_norm2}"),
        same(native="t_embedding.{m:mlp_in|mlp_out}"),
        same(native="{m:input_proj|llm_cond_norm|llm_cond_proj|adaln_proj|embed_image_indicator}"),
        same(native="final_layer.{m:linear|adaln_modulation}"),
    ),
)
