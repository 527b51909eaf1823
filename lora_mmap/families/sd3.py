"""Stable Diffusion 3 and 3.5 (24 blocks of width 1536, or 38 of 2432).

Stability's names, which ComfyUI keeps, have a stream for the image (``x_block``) and one for the text
(``context_block``) in each block, with q, k and v fused; diffusers has them apart. The first 13 blocks of 3.5 medium
attend to the image once more (``attn2``), with nine modulation vectors in place of six, in the same order on both
sides. Where only shift and scale are left, after the last block and for the text in the last block, diffusers has
scale first.
"""

from __future__ import annotations

from .tables import Family, TextEncoder, Weights, rows, same

_IMAGE, _TEXT = "joint_blocks.{i}.x_block.", "joint_blocks.{i}.context_block."
_BLOCK = "transformer_blocks.{i}."
_SIX = "shift1 scale1 gate1 shift2 scale2 gate2"


def _attention(native: str, parts: tuple[str, str, str], fused: str) -> Weights:
    return rows(
        "q k v",
        native={native + ".qkv": "q k v"},
        diffusers={_BLOCK + part: piece for part, piece in zip(parts, "qkv", strict=True)},
        fused={_BLOCK + fused: "q k v"},
    )


FAMILY = Family(
    name="sd3",
    title="Stable Diffusion 3",
    widths={_BLOCK + "attn.to_q": (1536, 2432)},
    text_encoders={
        "text_encoder": TextEncoder("clip", "clip_l.transformer"),
        "text_encoder_2": TextEncoder("clip", "clip_g.transformer"),
        "text_encoder_3": TextEncoder("t5", "t5xxl.transformer"),
    },
    weights=(
        _attention(_IMAGE + "attn", ("attn.to_q", "attn.to_k", "attn.to_v"), "attn.to_qkv"),
        _attention(_IMAGE + "attn2", ("attn2.to_q", "attn2.to_k", "attn2.to_v"), "attn2.to_qkv"),
        _attention(_TEXT + "attn", ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"), "attn.to_added_qkv"),
        same(native=_IMAGE + "attn.proj", diffusers=_BLOCK + "attn.to_out.0"),
        same(native=_IMAGE + "attn2.proj", diffusers=_BLOCK + "attn2.to_out.0"),
        same(native=_TEXT + "attn.proj", diffusers=_BLOCK + "attn.to_add_out"),
        same(native=_IMAGE + "attn.ln_{m:q|k}", diffusers=_BLOCK + "attn.norm_{m:q|k}"),
        same(native=_IMAGE + "attn2.ln_{m:q|k}", diffusers=_BLOCK + "attn2.norm_{m:q|k}"),
        same(native=_TEXT + "attn.ln_{m:q|k}", diffusers=_BLOCK + "attn.norm_added_{m:q|k}"),
        same(native=_IMAGE + "mlp.fc1", diffusers=_BLOCK + "ff.net.0.proj"),
        same(native=_IMAGE + "mlp.fc2", diffusers=_BLOCK + "ff.net.2"),
        same(native=_TEXT + "mlp.fc1", diffusers=_BLOCK + "ff_context.net.0.proj"),
        same(native=_TEXT + "mlp.fc2", diffusers=_BLOCK + "ff_context.net.2"),
        same(native=_IMAGE + "adaLN_modulation.1", diffusers=_BLOCK + "norm1.linear"),
        rows(
            _SIX,
            square=True,
            native={_TEXT + "adaLN_modulation.1": _SIX},
            diffusers={_BLOCK + "norm1_context.linear": _SIX},
        ),
        rows(
            "shift scale",
            square=True,
            native={_TEXT + "adaLN_modulation.1": "shift scale"},
            diffusers={_BLOCK + "norm1_context.linear": "scale shift"},
        ),
        rows(
            "shift scale",
            native={"final_layer.adaLN_modulation.1": "shift scale"},
            diffusers={"norm_out.linear": "scale shift"},
        ),
        same(native="final_layer.linear", diffusers="proj_out"),
        same(native="x_embedder.proj", diffusers="pos_embed.proj"),
        same(native="pos_embed", diffusers="pos_embed.pos_embed"),
        same(native="context_embedder", diffusers="context_embedder"),
        same(native="t_embedder.mlp.0", diffusers="time_text_embed.timestep_embedder.linear_1"),
        same(native="t_embedder.mlp.2", diffusers="time_text_embed.timestep_embedder.linear_2"),
        same(native="y_embedder.mlp.0", diffusers="time_text_embed.text_embedder.linear_1"),
        same(native="y_embedder.mlp.2", diffusers="time_text_embed.text_embedder.linear_2"),
    ),
)
