"""Bria 3.2 and Fibo by diffusers' names: Flux.1's blocks with other embedders. Fibo 2 is another model."""

from __future__ import annotations

from .tables import Family, rows, same

_BLOCK, _SINGLE = "transformer_blocks.{i}.", "single_transformer_blocks.{i}."
_LAYER = "{b:layers|noise_refiner}.{i}."
_PERCEIVER = "perceiver.layers.{i}."

FAMILY = Family(
    name="bria",
    title="Bria",
    widths={_BLOCK + "attn.to_q": (3072,)},
    weights=(
        rows(
            "q k v",
            diffusers={_BLOCK + "attn.to_q": "q", _BLOCK + "attn.to_k": "k", _BLOCK + "attn.to_v": "v"},
            fused={_BLOCK + "attn.to_qkv": "q k v"},
        ),
        rows(
            "q k v",
            diffusers={
                _BLOCK + "attn.add_q_proj": "q",
                _BLOCK + "attn.add_k_proj": "k",
                _BLOCK + "attn.add_v_proj": "v",
            },
            fused={_BLOCK + "attn.to_added_qkv": "q k v"},
        ),
        rows(
            "q k v",
            diffusers={_SINGLE + "attn.to_q": "q", _SINGLE + "attn.to_k": "k", _SINGLE + "attn.to_v": "v"},
            fused={_SINGLE + "attn.to_qkv": "q k v"},
        ),
        same(diffusers=_BLOCK + "attn.{m:to_out.0|to_add_out|norm_q|norm_k|norm_added_q|norm_added_k}"),
        same(diffusers=_BLOCK + "{f:ff|ff_context}.net.{m:0.proj|2}"),
        same(diffusers=_BLOCK + "{n:norm1|norm1_context}.linear"),
        same(diffusers=_SINGLE + "{m:attn.norm_q|attn.norm_k|norm.linear|proj_mlp|proj_out}"),
        same(diffusers="{t:timestep_embedder|guidance_embedder}.linear_{m:1|2}"),
        same(diffusers="time_embed.timestep_embedder.linear_{m:1|2}"),
        same(diffusers="guidance_embed.{m:linear_1|linear_2}"),
        same(diffusers="caption_projection.{i}.linear"),
        same(diffusers="{m:x_embedder|context_embedder|norm_out.linear|proj_out}"),
    ),
)

FIBO2 = Family(
    name="bria_fibo2",
    title="Bria Fibo 2",
    weights=(
        same(diffusers=_LAYER + "{a:attention|cross_attention}.{m:to_q|to_k|to_v|to_out.0|norm_q|norm_k}"),
        same(diffusers=_LAYER + "feed_forward.{m:w1|w2|w3}"),
        same(
            diffusers=_LAYER
            + "{m:attention_norm1|attention_norm2|ffn_norm1|ffn_norm2|cross_attn_norm1|cross_attn_norm2"
            "|cross_attn_gate|adaLN_modulation.0}"
        ),
        same(diffusers=_PERCEIVER + "{a:cross_attention|self_attention}.{m:to_q|to_k|to_v|to_out.0|norm_q|norm_k}"),
        same(diffusers=_PERCEIVER + "ffn.{m:w1|w2|w3}"),
        same(diffusers=_PERCEIVER + "{m:cross_attn_norm|self_attn_norm|ffn_norm}"),
        same(diffusers="perceiver.{m:latent_queries|norm_out}"),
        same(diffusers="{m:x_embedder|t_embedder.mlp.0|t_embedder.mlp.2}"),
        same(diffusers="final_layer.{m:linear|adaLN_modulation.1}"),
    ),
)
