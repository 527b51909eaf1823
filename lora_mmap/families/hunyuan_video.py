"""HunyuanVideo (20 double and 40 single blocks, width 3072; text and image to video, FramePack).

Blocks are Flux.1's. Tencent writes what belongs together with underscores (``img_attn_qkv``), ComfyUI as Flux.1 does
(``img_attn.qkv``), diffusers splits as it does for Flux.1 and has scale before shift in the last modulation. Text goes
through a refiner of its own, whose modulation (two gates) is alike everywhere. FramePack keeps diffusers' names.
"""

from __future__ import annotations

from .flux1 import BLOCK, DOUBLE, SINGLE, SINGLE_BLOCK, SIX, THREE
from .tables import Family, TextEncoder, Weights, cols, rows, same

_REFINER = "txt_in.individual_token_refiner.blocks.{i}."
_REFINER_BLOCK = "context_embedder.token_refiner.refiner_blocks.{i}."


def kept(native: str, diffusers: str) -> Weights:
    """A weight that ComfyUI calls as Tencent does."""
    return same(native=native, tencent=native, diffusers=diffusers)


def _attention(side: str, parts: tuple[str, str, str], fused: str, apart: bool) -> Weights:
    """q, k and v of one side of a double block; Tencent has them together, and ``apart`` in later models."""
    tencent = f"{DOUBLE}{side}_attn_"
    return rows(
        "q k v",
        native={f"{DOUBLE}{side}_attn.qkv": "q k v"},
        tencent={tencent + piece: piece for piece in "qkv"} if apart else {tencent + "qkv": "q k v"},
        diffusers={f"{BLOCK}attn.{part}": piece for part, piece in zip(parts, "qkv", strict=True)},
        fused={f"{BLOCK}attn.{fused}": "q k v"},
    )


def _side(side: str, diffusers: tuple[str, str, str, str]) -> tuple[Weights, ...]:
    """One side of a double block besides q, k and v; ``diffusers``: output, MLP, first and second norm."""
    out, mlp, norm1, norm2 = (BLOCK + name for name in diffusers)
    added = "" if side == "img" else "added_"
    return (
        same(native=f"{DOUBLE}{side}_attn.proj", tencent=f"{DOUBLE}{side}_attn_proj", diffusers=out),
        same(native=f"{DOUBLE}{side}_mlp.0", tencent=f"{DOUBLE}{side}_mlp.fc1", diffusers=f"{mlp}.net.0.proj"),
        same(native=f"{DOUBLE}{side}_mlp.2", tencent=f"{DOUBLE}{side}_mlp.fc2", diffusers=f"{mlp}.net.2"),
        rows(
            SIX,
            native={f"{DOUBLE}{side}_mod.lin": SIX},
            tencent={f"{DOUBLE}{side}_mod.linear": SIX},
            diffusers={f"{norm1}.linear": SIX},
        ),
        same(
            native=f"{DOUBLE}{side}_attn.norm.query_norm",
            tencent=f"{DOUBLE}{side}_attn_q_norm",
            diffusers=f"{BLOCK}attn.norm_{added}q",
        ),
        same(
            native=f"{DOUBLE}{side}_attn.norm.key_norm",
            tencent=f"{DOUBLE}{side}_attn_k_norm",
            diffusers=f"{BLOCK}attn.norm_{added}k",
        ),
        kept(f"{DOUBLE}{side}_norm1", f"{norm1}.norm"),
        kept(f"{DOUBLE}{side}_norm2", norm2),
    )


def double_blocks(*, apart: bool = False) -> tuple[Weights, ...]:
    """The double blocks; ``apart``: Tencent's names have q, k and v apart."""
    return (
        _attention("img", ("to_q", "to_k", "to_v"), "to_qkv", apart),
        _attention("txt", ("add_q_proj", "add_k_proj", "add_v_proj"), "to_added_qkv", apart),
        *_side("img", ("attn.to_out.0", "ff", "norm1", "norm2")),
        *_side("txt", ("attn.to_add_out", "ff_context", "norm1_context", "norm2_context")),
    )


SINGLE_BLOCKS = (
    rows(
        "q k v mlp:4",
        native={SINGLE + "linear1": "q k v mlp"},
        tencent={SINGLE + "linear1": "q k v mlp"},
        diffusers={
            SINGLE_BLOCK + "attn.to_q": "q",
            SINGLE_BLOCK + "attn.to_k": "k",
            SINGLE_BLOCK + "attn.to_v": "v",
            SINGLE_BLOCK + "proj_mlp": "mlp",
        },
        fused={SINGLE_BLOCK + "attn.to_qkv": "q k v", SINGLE_BLOCK + "proj_mlp": "mlp"},
    ),
    cols(
        "attn mlp:4",
        native={SINGLE + "linear2": "attn mlp"},
        tencent={SINGLE + "linear2": "attn mlp"},
        diffusers={SINGLE_BLOCK + "proj_out": "attn mlp"},
    ),
    rows(
        THREE,
        native={SINGLE + "modulation.lin": THREE},
        tencent={SINGLE + "modulation.linear": THREE},
        diffusers={SINGLE_BLOCK + "norm.linear": THREE},
    ),
    same(native=SINGLE + "norm.query_norm", tencent=SINGLE + "q_norm", diffusers=SINGLE_BLOCK + "attn.norm_q"),
    same(native=SINGLE + "norm.key_norm", tencent=SINGLE + "k_norm", diffusers=SINGLE_BLOCK + "attn.norm_k"),
    kept(SINGLE + "pre_norm", SINGLE_BLOCK + "norm.norm"),
)


def embedder(native: str, diffusers: str) -> tuple[Weights, Weights]:
    """The two layers that embed a number, such as the timestep."""
    return (
        same(native=f"{native}.in_layer", tencent=f"{native}.mlp.0", diffusers=f"{diffusers}.linear_1"),
        same(native=f"{native}.out_layer", tencent=f"{native}.mlp.2", diffusers=f"{diffusers}.linear_2"),
    )


TEXT_REFINER = (
    rows(
        "q k v",
        native={_REFINER + "self_attn.qkv": "q k v"},
        tencent={_REFINER + "self_attn_qkv": "q k v"},
        diffusers={f"{_REFINER_BLOCK}attn.to_{piece}": piece for piece in "qkv"},
        fused={_REFINER_BLOCK + "attn.to_qkv": "q k v"},
    ),
    same(
        native=_REFINER + "self_attn.proj",
        tencent=_REFINER + "self_attn_proj",
        diffusers=_REFINER_BLOCK + "attn.to_out.0",
    ),
    same(native=_REFINER + "mlp.0", tencent=_REFINER + "mlp.fc1", diffusers=_REFINER_BLOCK + "ff.net.0.proj"),
    same(native=_REFINER + "mlp.2", tencent=_REFINER + "mlp.fc2", diffusers=_REFINER_BLOCK + "ff.net.2"),
    kept(_REFINER + "adaLN_modulation.1", _REFINER_BLOCK + "norm_out.linear"),
    kept(_REFINER + "norm1", _REFINER_BLOCK + "norm1"),
    kept(_REFINER + "norm2", _REFINER_BLOCK + "norm2"),
    kept("txt_in.input_embedder", "context_embedder.proj_in"),
    *embedder("txt_in.t_embedder", "context_embedder.time_text_embed.timestep_embedder"),
    same(
        native="txt_in.c_embedder.in_layer",
        tencent="txt_in.c_embedder.linear_1",
        diffusers="context_embedder.time_text_embed.text_embedder.linear_1",
    ),
    same(
        native="txt_in.c_embedder.out_layer",
        tencent="txt_in.c_embedder.linear_2",
        diffusers="context_embedder.time_text_embed.text_embedder.linear_2",
    ),
)

ENDS = (
    kept("img_in.proj", "x_embedder.proj"),
    kept("final_layer.linear", "proj_out"),
    kept("final_layer.norm_final", "norm_out.norm"),
    rows(
        "shift scale",
        native={"final_layer.adaLN_modulation.1": "shift scale"},
        tencent={"final_layer.adaLN_modulation.1": "shift scale"},
        diffusers={"norm_out.linear": "scale shift"},
    ),
)

_VECTOR = (
    *embedder("time_in", "time_text_embed.timestep_embedder"),
    *embedder("guidance_in", "time_text_embed.guidance_embedder"),
    kept("vector_in.in_layer", "time_text_embed.text_embedder.linear_1"),
    kept("vector_in.out_layer", "time_text_embed.text_embedder.linear_2"),
)

# FramePack looks back at cleaned frames in three resolutions, and at the first image.
_FRAMEPACK = (
    same(diffusers="clean_x_embedder.{m:proj|proj_2x|proj_4x}"),
    same(diffusers="image_projection.{m:up|down}"),
)

FAMILY = Family(
    name="hunyuan_video",
    title="HunyuanVideo",
    widths={DOUBLE + "img_attn.qkv": (3072,), BLOCK + "attn.to_q": (3072,), SINGLE + "linear2": (15360,)},
    written={"kohya": "tencent"},
    text_encoders={
        "text_encoder": TextEncoder("language_model", "llama.transformer.model"),
        "text_encoder_2": TextEncoder("clip", "clip_l.transformer"),
    },
    weights=(*double_blocks(), *SINGLE_BLOCKS, *TEXT_REFINER, *_VECTOR, *ENDS, *_FRAMEPACK),
)
