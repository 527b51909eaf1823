"""Flux.2 (dev: 8 double and 48 single blocks, width 6144; klein 4B and 9B: widths 3072 and 4096, without guidance).

All blocks of a kind share one modulation. MLPs are gated (SwiGLU), so their first layer has 6 times the width in rows.
diffusers keeps the single blocks' first and last layer whole, as Black Forest Labs has them, and splits the double
blocks' q, k and v; its last modulation has scale before shift. Some early files cut ``transformer_blocks`` short.
"""

from __future__ import annotations

from .tables import Family, Naming, Weights, cols, rows, same

_DOUBLE, _SINGLE = "double_blocks.{i}.", "single_blocks.{i}."
_BLOCK, _SINGLE_BLOCK = "transformer_blocks.{i}.", "single_transformer_blocks.{i}."
_CUT_BLOCK = "sformer_blocks.{i}."
_SIX = "shift1 scale1 gate1 shift2 scale2 gate2"
_THREE = "shift scale gate"


def _attention(side: str, parts: tuple[str, str, str], fused: str) -> Weights:
    native = f"{_DOUBLE}{side}_attn.qkv"
    return rows(
        "q k v",
        native={native: "q k v"},
        diffusers={f"{_BLOCK}attn.{part}": piece for part, piece in zip(parts, "qkv", strict=True)},
        fused={f"{_BLOCK}attn.{fused}": "q k v"},
        onetrainer={f"{native}.{third}": piece for third, piece in enumerate("qkv")},
        cut={f"{_CUT_BLOCK}attn.{part}": piece for part, piece in zip(parts, "qkv", strict=True)},
    )


def _double(native: str, diffusers: str) -> Weights:
    return same(native=_DOUBLE + native, diffusers=_BLOCK + diffusers, cut=_CUT_BLOCK + diffusers)


_DOUBLE_BLOCKS = (
    _attention("img", ("to_q", "to_k", "to_v"), "to_qkv"),
    _attention("txt", ("add_q_proj", "add_k_proj", "add_v_proj"), "to_added_qkv"),
    _double("img_attn.proj", "attn.to_out.0"),
    _double("txt_attn.proj", "attn.to_add_out"),
    _double("img_mlp.0", "ff.linear_in"),
    _double("img_mlp.2", "ff.linear_out"),
    _double("txt_mlp.0", "ff_context.linear_in"),
    _double("txt_mlp.2", "ff_context.linear_out"),
    _double("img_attn.norm.query_norm", "attn.norm_q"),
    _double("img_attn.norm.key_norm", "attn.norm_k"),
    _double("txt_attn.norm.query_norm", "attn.norm_added_q"),
    _double("txt_attn.norm.key_norm", "attn.norm_added_k"),
    _double("img_norm1", "norm1"),
    _double("img_norm2", "norm2"),
    _double("txt_norm1", "norm1_context"),
    _double("txt_norm2", "norm2_context"),
)

_SINGLE_BLOCKS = (
    rows(
        "q k v mlp:6",
        native={_SINGLE + "linear1": "q k v mlp"},
        diffusers={_SINGLE_BLOCK + "attn.to_qkv_mlp_proj": "q k v mlp"},
        onetrainer={f"{_SINGLE}linear1.{part}": piece for part, piece in enumerate(("q", "k", "v", "mlp"))},
    ),
    cols(
        "attn mlp:3",
        native={_SINGLE + "linear2": "attn mlp"},
        diffusers={_SINGLE_BLOCK + "attn.to_out": "attn mlp"},
    ),
    same(native=_SINGLE + "norm.query_norm", diffusers=_SINGLE_BLOCK + "attn.norm_q"),
    same(native=_SINGLE + "norm.key_norm", diffusers=_SINGLE_BLOCK + "attn.norm_k"),
    same(native=_SINGLE + "pre_norm", diffusers=_SINGLE_BLOCK + "norm"),
)

_MODULATION = (
    rows(
        _SIX,
        native={"double_stream_modulation_img.lin": _SIX},
        diffusers={"double_stream_modulation_img.linear": _SIX},
    ),
    rows(
        _SIX,
        native={"double_stream_modulation_txt.lin": _SIX},
        diffusers={"double_stream_modulation_txt.linear": _SIX},
    ),
    rows(
        _THREE,
        native={"single_stream_modulation.lin": _THREE},
        diffusers={"single_stream_modulation.linear": _THREE},
    ),
    rows(
        "shift scale",
        native={"final_layer.adaLN_modulation.1": "shift scale"},
        diffusers={"norm_out.linear": "scale shift"},
    ),
)

_ENDS = (
    same(native="img_in", diffusers="x_embedder"),
    same(native="txt_in", diffusers="context_embedder"),
    same(native="time_in.in_layer", diffusers="time_guidance_embed.timestep_embedder.linear_1"),
    same(native="time_in.out_layer", diffusers="time_guidance_embed.timestep_embedder.linear_2"),
    same(native="guidance_in.in_layer", diffusers="time_guidance_embed.guidance_embedder.linear_1"),
    same(native="guidance_in.out_layer", diffusers="time_guidance_embed.guidance_embedder.linear_2"),
    same(native="final_layer.linear", diffusers="proj_out"),
    same(native="final_layer.norm_final", diffusers="norm_out.norm"),
)

FAMILY = Family(
    name="flux2",
    title="Flux.2",
    namings=(Naming("onetrainer", in_models=False), Naming("cut", in_models=False)),
    widths={
        _DOUBLE + "img_attn.qkv": (3072, 4096, 6144),
        _BLOCK + "attn.to_q": (3072, 4096, 6144),
        _SINGLE + "linear2": (12288, 16384, 24576),
    },
    weights=(*_DOUBLE_BLOCKS, *_SINGLE_BLOCKS, *_MODULATION, *_ENDS),
)
