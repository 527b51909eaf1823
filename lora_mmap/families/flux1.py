"""Flux.1 (19 double and 38 single blocks, width 3072; dev, schnell, Kontext, Fill, Canny, Depth, Krea, Redux).

Black Forest Labs' names, which ComfyUI keeps, fuse q, k and v, and in single blocks the first layer of the MLP too;
diffusers has them apart, or together after ``fuse_qkv_projections``. diffusers' last modulation has scale before shift.
Nunchaku fuses q, k and v again, splits the single blocks' output by input features, and keeps the modulation vectors of
a channel together; its second version says so with diffusers' paths. xlabs, USO, OneTrainer and DiffSynth-Studio write
names of their own.
"""

from __future__ import annotations

from .tables import Family, Naming, TextEncoder, Weights, cols, rows, same

DOUBLE, SINGLE = "double_blocks.{i}.", "single_blocks.{i}."
BLOCK, SINGLE_BLOCK = "transformer_blocks.{i}.", "single_transformer_blocks.{i}."
_SYNTH = "blocks.{i}."  # DiffSynth-Studio's double blocks, of which a is the image's side and b the text's
SIX = "shift1 scale1 gate1 shift2 scale2 gate2"
THREE = "shift scale gate"

NAMINGS = (
    Naming("nunchaku", beside="transformer_blocks.0.qkv_proj"),
    Naming("nunchaku2", beside="transformer_blocks.0.norm1.linear.qweight"),
    Naming("onetrainer", in_models=False),
    Naming("xlabs", in_models=False),
    Naming("diffsynth", in_models=False),
)


def _attention(side: str, number: int, parts: tuple[str, str, str], fused: tuple[str, str, str]) -> Weights:
    """q, k and v of one side of a double block; ``fused`` as diffusers and Nunchaku 2 and 1 call them together. xlabs
    numbers the sides, OneTrainer the thirds."""
    letter = "ab"[number - 1]
    native = f"{DOUBLE}{side}_attn.qkv"
    return rows(
        "q k v",
        native={native: "q k v"},
        diffusers={f"{BLOCK}attn.{part}": piece for part, piece in zip(parts, "qkv", strict=True)},
        fused={f"{BLOCK}attn.{fused[0]}": "q k v"},
        nunchaku2={f"{BLOCK}attn.{fused[1]}": "q k v"},
        nunchaku={BLOCK + fused[2]: "q k v"},
        onetrainer={f"{native}.{third}": piece for third, piece in enumerate("qkv")},
        xlabs={f"{DOUBLE}processor.qkv_lora{number}": "q k v"},
        diffsynth={f"{_SYNTH}attn.{letter}_to_qkv": "q k v"},
    )


def _modulation(side: str, norm: str, letter: str) -> Weights:
    return rows(
        SIX,
        native={f"{DOUBLE}{side}_mod.lin": SIX},
        diffusers={f"{BLOCK}{norm}.linear": SIX},
        nunchaku2={f"{BLOCK}{norm}.linear": SIX + " interleaved"},
        nunchaku={f"{BLOCK}{norm}.linear": SIX + " interleaved"},
        diffsynth={f"{_SYNTH}norm1_{letter}.linear": SIX},
    )


DOUBLE_BLOCKS = (
    _attention("img", 1, ("to_q", "to_k", "to_v"), ("to_qkv", "to_qkv", "qkv_proj")),
    _attention(
        "txt", 2, ("add_q_proj", "add_k_proj", "add_v_proj"), ("to_added_qkv", "add_qkv_proj", "qkv_proj_context")
    ),
    same(
        native=DOUBLE + "img_attn.proj",
        diffusers=BLOCK + "attn.to_out.0",
        nunchaku=BLOCK + "out_proj",
        xlabs=DOUBLE + "processor.proj_lora1",
        diffsynth=_SYNTH + "attn.a_to_out",
    ),
    same(
        native=DOUBLE + "txt_attn.proj",
        diffusers=BLOCK + "attn.to_add_out",
        nunchaku=BLOCK + "out_proj_context",
        xlabs=DOUBLE + "processor.proj_lora2",
        diffsynth=_SYNTH + "attn.b_to_out",
    ),
    same(
        native=DOUBLE + "img_mlp.0",
        diffusers=BLOCK + "ff.net.0.proj",
        nunchaku=BLOCK + "mlp_fc1",
        diffsynth=_SYNTH + "ff_a.0",
    ),
    same(
        native=DOUBLE + "img_mlp.2",
        diffusers=BLOCK + "ff.net.2",
        nunchaku=BLOCK + "mlp_fc2",
        diffsynth=_SYNTH + "ff_a.2",
    ),
    same(
        native=DOUBLE + "txt_mlp.0",
        diffusers=BLOCK + "ff_context.net.0.proj",
        nunchaku=BLOCK + "mlp_context_fc1",
        diffsynth=_SYNTH + "ff_b.0",
    ),
    same(
        native=DOUBLE + "txt_mlp.2",
        diffusers=BLOCK + "ff_context.net.2",
        nunchaku=BLOCK + "mlp_context_fc2",
        diffsynth=_SYNTH + "ff_b.2",
    ),
    same(native=DOUBLE + "img_attn.norm.query_norm", diffusers=BLOCK + "attn.norm_q", nunchaku=BLOCK + "norm_q"),
    same(native=DOUBLE + "img_attn.norm.key_norm", diffusers=BLOCK + "attn.norm_k", nunchaku=BLOCK + "norm_k"),
    same(
        native=DOUBLE + "txt_attn.norm.query_norm",
        diffusers=BLOCK + "attn.norm_added_q",
        nunchaku=BLOCK + "norm_added_q",
    ),
    same(
        native=DOUBLE + "txt_attn.norm.key_norm",
        diffusers=BLOCK + "attn.norm_added_k",
        nunchaku=BLOCK + "norm_added_k",
    ),
    # Norms without weights of their own: LyCORIS trains some on them all the same.
    same(native=DOUBLE + "img_norm1", diffusers=BLOCK + "norm1.norm"),
    same(native=DOUBLE + "img_norm2", diffusers=BLOCK + "norm2"),
    same(native=DOUBLE + "txt_norm1", diffusers=BLOCK + "norm1_context.norm"),
    same(native=DOUBLE + "txt_norm2", diffusers=BLOCK + "norm2_context"),
)

SINGLE_BLOCKS = (
    rows(
        "q k v mlp:4",
        native={SINGLE + "linear1": "q k v mlp"},
        diffusers={
            SINGLE_BLOCK + "attn.to_q": "q",
            SINGLE_BLOCK + "attn.to_k": "k",
            SINGLE_BLOCK + "attn.to_v": "v",
            SINGLE_BLOCK + "proj_mlp": "mlp",
        },
        fused={SINGLE_BLOCK + "attn.to_qkv": "q k v", SINGLE_BLOCK + "proj_mlp": "mlp"},
        nunchaku2={SINGLE_BLOCK + "attn.to_qkv": "q k v", SINGLE_BLOCK + "mlp_fc1": "mlp"},
        nunchaku={SINGLE_BLOCK + "qkv_proj": "q k v", SINGLE_BLOCK + "mlp_fc1": "mlp"},
        onetrainer={f"{SINGLE}linear1.{part}": piece for part, piece in enumerate(("q", "k", "v", "mlp"))},
        xlabs={SINGLE + "processor.qkv": "q k v"},
        diffsynth={SINGLE + "to_qkv_mlp": "q k v mlp"},
    ),
    cols(
        "attn mlp:4",
        native={SINGLE + "linear2": "attn mlp"},
        diffusers={SINGLE_BLOCK + "proj_out": "attn mlp"},
        nunchaku2={SINGLE_BLOCK + "attn.to_out": "attn", SINGLE_BLOCK + "mlp_fc2": "mlp"},
        nunchaku={SINGLE_BLOCK + "out_proj": "attn", SINGLE_BLOCK + "mlp_fc2": "mlp"},
        xlabs={SINGLE + "processor.proj": "attn mlp"},
        diffsynth={SINGLE + "proj_out": "attn mlp"},
    ),
    same(native=SINGLE + "norm.query_norm", diffusers=SINGLE_BLOCK + "attn.norm_q", nunchaku=SINGLE_BLOCK + "norm_q"),
    same(native=SINGLE + "norm.key_norm", diffusers=SINGLE_BLOCK + "attn.norm_k", nunchaku=SINGLE_BLOCK + "norm_k"),
    same(native=SINGLE + "pre_norm", diffusers=SINGLE_BLOCK + "norm.norm"),
)

ENDS = (
    same(native="img_in", diffusers="x_embedder"),
    same(native="txt_in", diffusers="context_embedder"),
    same(native="final_layer.linear", diffusers="proj_out"),
    same(native="final_layer.norm_final", diffusers="norm_out.norm"),
)

_VECTOR = (
    same(native="time_in.in_layer", diffusers="time_text_embed.timestep_embedder.linear_1"),
    same(native="time_in.out_layer", diffusers="time_text_embed.timestep_embedder.linear_2"),
    same(native="vector_in.in_layer", diffusers="time_text_embed.text_embedder.linear_1"),
    same(native="vector_in.out_layer", diffusers="time_text_embed.text_embedder.linear_2"),
    same(native="guidance_in.in_layer", diffusers="time_text_embed.guidance_embedder.linear_1"),
    same(native="guidance_in.out_layer", diffusers="time_text_embed.guidance_embedder.linear_2"),
)

_MODULATION = (
    _modulation("img", "norm1", "a"),
    _modulation("txt", "norm1_context", "b"),
    rows(
        THREE,
        native={SINGLE + "modulation.lin": THREE},
        diffusers={SINGLE_BLOCK + "norm.linear": THREE},
        nunchaku2={SINGLE_BLOCK + "norm.linear": THREE + " interleaved"},
        nunchaku={SINGLE_BLOCK + "norm.linear": THREE + " interleaved"},
        diffsynth={SINGLE + "norm.linear": THREE},
    ),
    rows(
        "shift scale",
        native={"final_layer.adaLN_modulation.1": "shift scale"},
        diffusers={"norm_out.linear": "scale shift"},
    ),
)

# What Redux and ControlNets have besides.
_ADDITIONS = (
    same(diffusers="{m:redux_up|redux_down}"),
    same(diffusers="{m:controlnet_x_embedder|controlnet_mode_embedder}"),
    same(diffusers="{m:controlnet_blocks|controlnet_single_blocks}.{i}"),
)

# Chroma's too; Flux.2 has the same names, and its single blocks' MLPs are narrower for their width.
WIDTHS = {
    DOUBLE + "img_attn.qkv": (3072,),
    BLOCK + "attn.to_q": (3072,),
    SINGLE + "linear2": (15360,),
}

FAMILY = Family(
    name="flux1",
    title="Flux.1",
    namings=NAMINGS,
    widths=WIDTHS,
    text_encoders={
        "text_encoder": TextEncoder("clip", "clip_l.transformer"),
        "text_encoder_2": TextEncoder("t5", "t5xxl.transformer"),
    },
    weights=(*DOUBLE_BLOCKS, *SINGLE_BLOCKS, *_MODULATION, *_VECTOR, *ENDS, *_ADDITIONS),
)
