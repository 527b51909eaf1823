"""Lumina-Image 2.0 (26 layers and two refiners of 2 layers, width 2304). Attention shares each key and value between
three heads, so q, k and v have 2304, 768 and 768 rows. The refiner of the caption (``context_refiner``) is not
modulated. Some files name its q, k and v as Z-Image does, whose layers are Lumina's."""

from __future__ import annotations

from .tables import Family, Naming, TextEncoder, rows, same

_LAYER = "{stack:layers|noise_refiner|context_refiner}.{i}."
_MODULATED = "{stack:layers|noise_refiner}.{i}."
_CONTEXT = "context_refiner.{i}."

FAMILY = Family(
    name="lumina2",
    title="Lumina-Image 2.0",
    namings=(Naming("as_z_image", in_models=False),),
    text_encoders={"text_encoder": TextEncoder("language_model", "gemma2_2b.transformer.model")},
    weights=(
        rows(
            "q:3 k v",
            native={_LAYER + "attention.qkv": "q k v"},
            diffusers={_LAYER + "attn.to_q": "q", _LAYER + "attn.to_k": "k", _LAYER + "attn.to_v": "v"},
            as_z_image={
                _LAYER + "attention.to_q": "q",
                _LAYER + "attention.to_k": "k",
                _LAYER + "attention.to_v": "v",
            },
        ),
        same(
            native=_LAYER + "attention.out",
            diffusers=_LAYER + "attn.to_out.0",
            as_z_image=_LAYER + "attention.to_out.0",
        ),
        same(native=_LAYER + "attention.q_norm", diffusers=_LAYER + "attn.norm_q"),
        same(native=_LAYER + "attention.k_norm", diffusers=_LAYER + "attn.norm_k"),
        same(native=_LAYER + "feed_forward.w1", diffusers=_LAYER + "feed_forward.linear_1"),
        same(native=_LAYER + "feed_forward.w2", diffusers=_LAYER + "feed_forward.linear_2"),
        same(native=_LAYER + "feed_forward.w3", diffusers=_LAYER + "feed_forward.linear_3"),
        same(native=_MODULATED + "adaLN_modulation.1", diffusers=_MODULATED + "norm1.linear"),
        same(native=_MODULATED + "attention_norm1", diffusers=_MODULATED + "norm1.norm"),
        same(native=_CONTEXT + "attention_norm1", diffusers=_CONTEXT + "norm1"),
        same(native=_LAYER + "attention_norm2", diffusers=_LAYER + "norm2"),
        same(native=_LAYER + "ffn_norm{m:1|2}", diffusers=_LAYER + "ffn_norm{m:1|2}"),
        same(native="x_embedder", diffusers="x_embedder"),
        same(native="cap_embedder.0", diffusers="time_caption_embed.caption_embedder.0"),
        same(native="cap_embedder.1", diffusers="time_caption_embed.caption_embedder.1"),
        same(native="t_embedder.mlp.0", diffusers="time_caption_embed.timestep_embedder.linear_1"),
        same(native="t_embedder.mlp.2", diffusers="time_caption_embed.timestep_embedder.linear_2"),
        same(native="final_layer.adaLN_modulation.1", diffusers="norm_out.linear_1"),
        same(native="final_layer.linear", diffusers="norm_out.linear_2"),
        same(native="final_layer.norm_final", diffusers="norm_out.norm"),
        same(native="norm_final"),
    ),
)
