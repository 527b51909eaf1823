"""Hunyuan-DiT (40 blocks, width 1408). Tencent's names, which ComfyUI and kohya keep, fuse q, k and v of self
attention, k and v of cross attention; diffusers has them apart, and scale before shift in its last modulation.

Tencent's ``norm2`` is diffusers' ``norm3`` and the other way round. Both namings have both, so no name tells which is
meant: they are taken as the model has them.
"""

from __future__ import annotations

from .tables import Family, rows, same

_BLOCK = "blocks.{i}."
_ATTN1, _ATTN2 = _BLOCK + "attn1.", _BLOCK + "attn2."
_TIME = "time_extra_emb."

FAMILY = Family(
    name="hunyuan_dit",
    title="Hunyuan-DiT",
    base_models=("hydit",),
    widths={_ATTN1 + "to_q": (1408,)},
    weights=(
        rows(
            "q k v",
            native={_ATTN1 + "Wqkv": "q k v"},
            diffusers={_ATTN1 + "to_q": "q", _ATTN1 + "to_k": "k", _ATTN1 + "to_v": "v"},
            fused={_ATTN1 + "to_qkv": "q k v"},
        ),
        same(native=_ATTN2 + "q_proj", diffusers=_ATTN2 + "to_q"),
        rows(
            "k v",
            native={_ATTN2 + "kv_proj": "k v"},
            diffusers={_ATTN2 + "to_k": "k", _ATTN2 + "to_v": "v"},
            fused={_ATTN2 + "to_kv": "k v"},
        ),
        same(native=_BLOCK + "{a:attn1|attn2}.out_proj", diffusers=_BLOCK + "{a:attn1|attn2}.to_out.0"),
        same(native=_BLOCK + "{a:attn1|attn2}.q_norm", diffusers=_BLOCK + "{a:attn1|attn2}.norm_q"),
        same(native=_BLOCK + "{a:attn1|attn2}.k_norm", diffusers=_BLOCK + "{a:attn1|attn2}.norm_k"),
        same(native=_BLOCK + "mlp.fc1", diffusers=_BLOCK + "ff.net.0.proj"),
        same(native=_BLOCK + "mlp.fc2", diffusers=_BLOCK + "ff.net.2"),
        same(native=_BLOCK + "default_modulation.1", diffusers=_BLOCK + "norm1.linear"),
        same(native=_BLOCK + "norm1", diffusers=_BLOCK + "norm1.norm"),
        same(native=_BLOCK + "{m:norm2|norm3|skip_norm|skip_linear}"),
        rows(
            "shift scale",
            native={"final_layer.adaLN_modulation.1": "shift scale"},
            diffusers={"norm_out.linear": "scale shift"},
        ),
        same(native="final_layer.linear", diffusers="proj_out"),
        same(native="x_embedder.proj", diffusers="pos_embed.proj"),
        same(native="mlp_t5.0", diffusers="text_embedder.linear_1"),
        same(native="mlp_t5.2", diffusers="text_embedder.linear_2"),
        same(native="t_embedder.mlp.0", diffusers=_TIME + "timestep_embedder.linear_1"),
        same(native="t_embedder.mlp.2", diffusers=_TIME + "timestep_embedder.linear_2"),
        same(native="extra_embedder.0", diffusers=_TIME + "extra_embedder.linear_1"),
        same(native="extra_embedder.2", diffusers=_TIME + "extra_embedder.linear_2"),
        same(
            native="pooler.{m:positional_embedding|k_proj|q_proj|v_proj|c_proj}",
            diffusers=_TIME + "pooler.{m:positional_embedding|k_proj|q_proj|v_proj|c_proj}",
        ),
        same(native="style_embedder", diffusers=_TIME + "style_embedder"),
        same(native="text_embedding_padding", diffusers="text_embedding_padding"),
    ),
)
