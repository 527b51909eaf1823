"""Sana, Sana Sprint and Sana Video (20 to 60 blocks, width 1152 or 2240). NVIDIA's names fuse q, k and v of self
attention, k and v of cross attention; diffusers has them apart. Feed forwards are convolutions."""

from __future__ import annotations

from .tables import Family, rows, same

_BLOCK, _DIFFUSERS_BLOCK = "blocks.{i}.", "transformer_blocks.{i}."
_ATTN1, _ATTN2 = _DIFFUSERS_BLOCK + "attn1.", _DIFFUSERS_BLOCK + "attn2."

FAMILY = Family(
    name="sana",
    title="Sana",
    widths={_ATTN1 + "to_q": (1152, 2240)},
    weights=(
        rows(
            "q k v",
            native={_BLOCK + "attn.qkv": "q k v"},
            diffusers={_ATTN1 + "to_q": "q", _ATTN1 + "to_k": "k", _ATTN1 + "to_v": "v"},
        ),
        same(native=_BLOCK + "attn.proj", diffusers=_ATTN1 + "to_out.0"),
        same(native=_BLOCK + "attn.q_norm", diffusers=_ATTN1 + "norm_q"),
        same(native=_BLOCK + "attn.k_norm", diffusers=_ATTN1 + "norm_k"),
        same(native=_BLOCK + "cross_attn.q_linear", diffusers=_ATTN2 + "to_q"),
        rows(
            "k v",
            native={_BLOCK + "cross_attn.kv_linear": "k v"},
            diffusers={_ATTN2 + "to_k": "k", _ATTN2 + "to_v": "v"},
        ),
        same(native=_BLOCK + "cross_attn.proj", diffusers=_ATTN2 + "to_out.0"),
        same(native=_BLOCK + "cross_attn.q_norm", diffusers=_ATTN2 + "norm_q"),
        same(native=_BLOCK + "cross_attn.k_norm", diffusers=_ATTN2 + "norm_k"),
        same(native=_BLOCK + "mlp.inverted_conv.conv", diffusers=_DIFFUSERS_BLOCK + "ff.conv_inverted"),
        same(native=_BLOCK + "mlp.depth_conv.conv", diffusers=_DIFFUSERS_BLOCK + "ff.conv_depth"),
        same(native=_BLOCK + "mlp.point_conv.conv", diffusers=_DIFFUSERS_BLOCK + "ff.conv_point"),
        same(native=_BLOCK + "mlp.t_conv", diffusers=_DIFFUSERS_BLOCK + "ff.conv_temp"),
        same(native=_BLOCK + "scale_shift_table", diffusers=_DIFFUSERS_BLOCK + "scale_shift_table"),
        same(native="x_embedder.proj", diffusers=("patch_embed.proj", "patch_embedding")),
        # with a guidance embedder (Sprint), both embedders move up a level
        same(
            native="t_embedder.mlp.0",
            diffusers=("time_embed.emb.timestep_embedder.linear_1", "time_embed.timestep_embedder.linear_1"),
        ),
        same(
            native="t_embedder.mlp.2",
            diffusers=("time_embed.emb.timestep_embedder.linear_2", "time_embed.timestep_embedder.linear_2"),
        ),
        same(native="cfg_embedder.mlp.0", diffusers="time_embed.guidance_embedder.linear_1"),
        same(native="cfg_embedder.mlp.2", diffusers="time_embed.guidance_embedder.linear_2"),
        same(native="t_block.1", diffusers="time_embed.linear"),
        same(native="y_embedder.y_proj.fc1", diffusers="caption_projection.linear_1"),
        same(native="y_embedder.y_proj.fc2", diffusers="caption_projection.linear_2"),
        same(native="attention_y_norm", diffusers="caption_norm"),
        same(native="final_layer.linear", diffusers="proj_out"),
        same(native="final_layer.scale_shift_table", diffusers="scale_shift_table"),
    ),
)
