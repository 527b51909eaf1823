"""Mochi 1 (48 blocks; video 3072 wide, text 1536). Genmo's names, which ComfyUI keeps, fuse q, k and v of each side and
put the gate of a feed forward before its value; diffusers has q, k and v apart and the value first. The last block's
text side ends with its attention."""

from __future__ import annotations

from .tables import Family, Weights, rows, same

_BLOCK, _DIFFUSERS_BLOCK = "blocks.{i}.", "transformer_blocks.{i}."
_ATTENTION, _DIFFUSERS_ATTENTION = _BLOCK + "attn.", _DIFFUSERS_BLOCK + "attn1."


def _attention(side: str, parts: tuple[str, str, str], norms: tuple[str, str], out: str) -> tuple[Weights, ...]:
    return (
        rows(
            "q k v",
            native={f"{_ATTENTION}qkv_{side}": "q k v"},
            diffusers={_DIFFUSERS_ATTENTION + part: piece for part, piece in zip(parts, "qkv", strict=True)},
        ),
        same(native=f"{_ATTENTION}q_norm_{side}", diffusers=_DIFFUSERS_ATTENTION + norms[0]),
        same(native=f"{_ATTENTION}k_norm_{side}", diffusers=_DIFFUSERS_ATTENTION + norms[1]),
        same(native=f"{_ATTENTION}proj_{side}", diffusers=_DIFFUSERS_ATTENTION + out),
    )


def _feed_forward(side: str, diffusers: str) -> tuple[Weights, ...]:
    return (
        rows(
            "gate value",
            native={f"{_BLOCK}mlp_{side}.w1": "gate value"},
            diffusers={f"{_DIFFUSERS_BLOCK}{diffusers}.net.0.proj": "value gate"},
        ),
        same(native=f"{_BLOCK}mlp_{side}.w2", diffusers=f"{_DIFFUSERS_BLOCK}{diffusers}.net.2"),
    )


FAMILY = Family(
    name="mochi",
    title="Mochi 1",
    widths={_DIFFUSERS_ATTENTION + "to_q": (3072,)},
    weights=(
        *_attention("x", ("to_q", "to_k", "to_v"), ("norm_q", "norm_k"), "to_out.0"),
        *_attention("y", ("add_q_proj", "add_k_proj", "add_v_proj"), ("norm_added_q", "norm_added_k"), "to_add_out"),
        *_feed_forward("x", "ff"),
        *_feed_forward("y", "ff_context"),
        same(native=_BLOCK + "mod_x", diffusers=_DIFFUSERS_BLOCK + "norm1.linear"),
        same(
            native=_BLOCK + "mod_y",
            diffusers=(_DIFFUSERS_BLOCK + "norm1_context.linear", _DIFFUSERS_BLOCK + "norm1_context.linear_1"),
        ),
        rows("shift scale", native={"final_layer.mod": "shift scale"}, diffusers={"norm_out.linear": "scale shift"}),
        same(native="final_layer.linear", diffusers="proj_out"),
        same(native="x_embedder.proj", diffusers="patch_embed.proj"),
        same(native="t_embedder.mlp.0", diffusers="time_embed.timestep_embedder.linear_1"),
        same(native="t_embedder.mlp.2", diffusers="time_embed.timestep_embedder.linear_2"),
        same(native="t5_y_embedder.{m:to_kv|to_q|to_out}", diffusers="time_embed.pooler.{m:to_kv|to_q|to_out}"),
        same(native="t5_yproj", diffusers="time_embed.caption_proj"),
        same(native="pos_frequencies", diffusers="pos_frequencies"),
    ),
)
