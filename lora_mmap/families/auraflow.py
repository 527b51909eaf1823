"""AuraFlow (4 double and 32 single blocks, width 3072).

Natively, ``w1`` is the text's projection and ``w2`` the image's in a double block, and a single one has ``w1`` alone.
diffusers' last modulation has scale before shift.
"""

from __future__ import annotations

from .tables import Family, Weights, rows, same

_DOUBLE, _SINGLE = "double_layers.{i}.", "single_layers.{i}."
_BLOCK, _SINGLE_BLOCK = "joint_transformer_blocks.{i}.", "single_transformer_blocks.{i}."


def _attention(native: str, number: int, diffusers: str, parts: tuple[str, str, str], fused: str) -> Weights:
    return rows(
        "q k v",
        native={f"{native}attn.w{number}{piece}": piece for piece in "qkv"},
        diffusers={f"{diffusers}attn.{part}": piece for part, piece in zip(parts, "qkv", strict=True)},
        fused={f"{diffusers}attn.{fused}": "q k v"},
    )


def _mlp(native: str, diffusers: str) -> tuple[Weights, ...]:
    return (
        same(native=native + ".c_fc{n:1|2}", diffusers=diffusers + ".linear_{n:1|2}"),
        same(native=native + ".c_proj", diffusers=diffusers + ".out_projection"),
    )


FAMILY = Family(
    name="auraflow",
    title="AuraFlow",
    weights=(
        _attention(_DOUBLE, 1, _BLOCK, ("add_q_proj", "add_k_proj", "add_v_proj"), "to_added_qkv"),
        _attention(_DOUBLE, 2, _BLOCK, ("to_q", "to_k", "to_v"), "to_qkv"),
        _attention(_SINGLE, 1, _SINGLE_BLOCK, ("to_q", "to_k", "to_v"), "to_qkv"),
        same(native=_DOUBLE + "attn.w1o", diffusers=_BLOCK + "attn.to_add_out"),
        same(native=_DOUBLE + "attn.w2o", diffusers=_BLOCK + "attn.to_out.0"),
        same(native=_SINGLE + "attn.w1o", diffusers=_SINGLE_BLOCK + "attn.to_out.0"),
        *_mlp(_DOUBLE + "mlpX", _BLOCK + "ff"),
        *_mlp(_DOUBLE + "mlpC", _BLOCK + "ff_context"),
        *_mlp(_SINGLE + "mlp", _SINGLE_BLOCK + "ff"),
        same(native=_DOUBLE + "modX.1", diffusers=_BLOCK + "norm1.linear"),
        same(native=_DOUBLE + "modC.1", diffusers=_BLOCK + "norm1_context.linear"),
        same(native=_SINGLE + "modCX.1", diffusers=_SINGLE_BLOCK + "norm1.linear"),
        rows("shift scale", native={"modF.1": "shift scale"}, diffusers={"norm_out.linear": "scale shift"}),
        same(native="final_linear", diffusers="proj_out"),
        same(native="init_x_linear", diffusers="pos_embed.proj"),
        same(native="positional_encoding", diffusers="pos_embed.pos_embed"),
        same(native="register_tokens", diffusers="register_tokens"),
        same(native="cond_seq_linear", diffusers="context_embedder"),
        same(native="t_embedder.mlp.0", diffusers="time_step_proj.linear_1"),
        same(native="t_embedder.mlp.2", diffusers="time_step_proj.linear_2"),
    ),
)
