"""PixArt-alpha and PixArt-sigma (28 blocks, width 1152).

Natively, self-attention has q, k and v fused, and attention to the text k and v; diffusers has them apart. Modulation
is one table per block, in the same order on both sides; alpha at 1024 pixels also embeds resolution and aspect ratio.
"""

from __future__ import annotations

from .tables import Family, TextEncoder, rows, same

_BLOCK = "blocks.{i}."
_DIFFUSERS = "transformer_blocks.{i}."

FAMILY = Family(
    name="pixart",
    title="PixArt",
    text_encoders={"text_encoder": TextEncoder("t5", "t5xxl.transformer")},
    weights=(
        rows(
            "q k v",
            native={_BLOCK + "attn.qkv": "q k v"},
            diffusers={f"{_DIFFUSERS}attn1.to_{piece}": piece for piece in "qkv"},
            fused={_DIFFUSERS + "attn1.to_qkv": "q k v"},
        ),
        same(native=_BLOCK + "attn.proj", diffusers=_DIFFUSERS + "attn1.to_out.0"),
        same(native=_BLOCK + "cross_attn.q_linear", diffusers=_DIFFUSERS + "attn2.to_q"),
        rows(
            "k v",
            native={_BLOCK + "cross_attn.kv_linear": "k v"},
            diffusers={f"{_DIFFUSERS}attn2.to_{piece}": piece for piece in "kv"},
            fused={_DIFFUSERS + "attn2.to_kv": "k v"},
        ),
        same(native=_BLOCK + "cross_attn.proj", diffusers=_DIFFUSERS + "attn2.to_out.0"),
        same(native=_BLOCK + "mlp.fc1", diffusers=_DIFFUSERS + "ff.net.0.proj"),
        same(native=_BLOCK + "mlp.fc2", diffusers=_DIFFUSERS + "ff.net.2"),
        same(native=_BLOCK + "scale_shift_table", diffusers=_DIFFUSERS + "scale_shift_table"),
        same(native=_BLOCK + "attn.{m:q_norm|k_norm}", diffusers=_DIFFUSERS + "attn1.{m:q_norm|k_norm}"),
        same(native="t_block.1", diffusers="adaln_single.linear"),
        same(native="t_embedder.mlp.0", diffusers="adaln_single.emb.timestep_embedder.linear_1"),
        same(native="t_embedder.mlp.2", diffusers="adaln_single.emb.timestep_embedder.linear_2"),
        same(native="csize_embedder.mlp.0", diffusers="adaln_single.emb.resolution_embedder.linear_1"),
        same(native="csize_embedder.mlp.2", diffusers="adaln_single.emb.resolution_embedder.linear_2"),
        same(native="ar_embedder.mlp.0", diffusers="adaln_single.emb.aspect_ratio_embedder.linear_1"),
        same(native="ar_embedder.mlp.2", diffusers="adaln_single.emb.aspect_ratio_embedder.linear_2"),
        same(native="y_embedder.y_proj.fc1", diffusers="caption_projection.linear_1"),
        same(native="y_embedder.y_proj.fc2", diffusers="caption_projection.linear_2"),
        same(native="y_embedder.y_embedding", diffusers="caption_projection.y_embedding"),
        same(native="x_embedder.proj", diffusers="pos_embed.proj"),
        same(native="final_layer.scale_shift_table", diffusers="scale_shift_table"),
        same(native="final_layer.linear", diffusers="proj_out"),
    ),
)
