"""Flux.1 (19 double and 38 single blocks, width 3072; dev, schnell, Kontext, Fill, Krea).

Black Forest Labs' names, which ComfyUI keeps, fuse q, k and v, and in single blocks the first layer of the MLP too;
diffusers has them apart. diffusers' last modulation has scale before shift. Nunchaku fuses q, k and v again, splits the
single blocks' output by input features, and keeps the modulation vectors of a channel together.
"""

from __future__ import annotations

from .tables import Family, Naming, Weights, cols, rows, same

_DOUBLE, _SINGLE = "double_blocks.{i}.", "single_blocks.{i}."
_BLOCK, _SINGLE_BLOCK = "transformer_blocks.{i}.", "single_transformer_blocks.{i}."
_SIX = "shift1 scale1 gate1 shift2 scale2 gate2"
_THREE = "shift scale gate"


def _attention(side: str, number: int, parts: tuple[str, str, str], fused: str, nunchaku: str) -> Weights:
    """q, k and v of one side of a double block. xlabs numbers the sides, OneTrainer the thirds."""
    native = f"{_DOUBLE}{side}_attn.qkv"
    return rows(
        "q k v",
        native={native: "q k v"},
        diffusers={f"{_BLOCK}attn.{part}": piece for part, piece in zip(parts, "qkv", strict=True)},
        fused={f"{_BLOCK}attn.{fused}": "q k v"},
        nunchaku={_BLOCK + nunchaku: "q k v"},
        onetrainer={f"{native}.{third}": piece for third, piece in enumerate("qkv")},
        xlabs={f"{_DOUBLE}processor.qkv_lora{number}": "q k v"},
    )


def _modulation(side: str, norm: str) -> Weights:
    return rows(
        _SIX,
        native={f"{_DOUBLE}{side}_mod.lin": _SIX},
        diffusers={f"{_BLOCK}{norm}.linear": _SIX},
        nunchaku={f"{_BLOCK}{norm}.linear": _SIX + " interleaved"},
    )


FAMILY = Family(
    name="flux1",
    title="Flux.1",
    namings=(
        Naming("nunchaku", beside="transformer_blocks.0.qkv_proj"),
        Naming("onetrainer", in_models=False),
        Naming("xlabs", in_models=False),
    ),
    written={"kohya": "native", "comfyui": "native"},
    weights=(
        _attention("img", 1, ("to_q", "to_k", "to_v"), "to_qkv", "qkv_proj"),
        _attention("txt", 2, ("add_q_proj", "add_k_proj", "add_v_proj"), "to_added_qkv", "qkv_proj_context"),
        same(
            native=_DOUBLE + "img_attn.proj",
            diffusers=_BLOCK + "attn.to_out.0",
            nunchaku=_BLOCK + "out_proj",
            xlabs=_DOUBLE + "processor.proj_lora1",
        ),
        same(
            native=_DOUBLE + "txt_attn.proj",
            diffusers=_BLOCK + "attn.to_add_out",
            nunchaku=_BLOCK + "out_proj_context",
            xlabs=_DOUBLE + "processor.proj_lora2",
        ),
        same(native=_DOUBLE + "img_mlp.0", diffusers=_BLOCK + "ff.net.0.proj", nunchaku=_BLOCK + "mlp_fc1"),
        same(native=_DOUBLE + "img_mlp.2", diffusers=_BLOCK + "ff.net.2", nunchaku=_BLOCK + "mlp_fc2"),
        same(
            native=_DOUBLE + "txt_mlp.0",
            diffusers=_BLOCK + "ff_context.net.0.proj",
            nunchaku=_BLOCK + "mlp_context_fc1",
        ),
        same(native=_DOUBLE + "txt_mlp.2", diffusers=_BLOCK + "ff_context.net.2", nunchaku=_BLOCK + "mlp_context_fc2"),
        _modulation("img", "norm1"),
        _modulation("txt", "norm1_context"),
        rows(
            "q k v mlp:4",
            native={_SINGLE + "linear1": "q k v mlp"},
            diffusers={
                _SINGLE_BLOCK + "attn.to_q": "q",
                _SINGLE_BLOCK + "attn.to_k": "k",
                _SINGLE_BLOCK + "attn.to_v": "v",
                _SINGLE_BLOCK + "proj_mlp": "mlp",
            },
            fused={_SINGLE_BLOCK + "attn.to_qkv": "q k v", _SINGLE_BLOCK + "proj_mlp": "mlp"},
            nunchaku={_SINGLE_BLOCK + "qkv_proj": "q k v", _SINGLE_BLOCK + "mlp_fc1": "mlp"},
            onetrainer={f"{_SINGLE}linear1.{part}": piece for part, piece in enumerate(("q", "k", "v", "mlp"))},
            xlabs={_SINGLE + "processor.qkv": "q k v"},
        ),
        cols(
            "attn mlp:4",
            native={_SINGLE + "linear2": "attn mlp"},
            diffusers={_SINGLE_BLOCK + "proj_out": "attn mlp"},
            nunchaku={_SINGLE_BLOCK + "out_proj": "attn", _SINGLE_BLOCK + "mlp_fc2": "mlp"},
            xlabs={_SINGLE + "processor.proj": "attn mlp"},
        ),
        rows(
            _THREE,
            native={_SINGLE + "modulation.lin": _THREE},
            diffusers={_SINGLE_BLOCK + "norm.linear": _THREE},
            nunchaku={_SINGLE_BLOCK + "norm.linear": _THREE + " interleaved"},
        ),
        rows(
            "shift scale",
            native={"final_layer.adaLN_modulation.1": "shift scale"},
            diffusers={"norm_out.linear": "scale shift"},
        ),
        same(native="final_layer.linear", diffusers="proj_out"),
        same(native="img_in", diffusers="x_embedder"),
        same(native="txt_in", diffusers="context_embedder"),
        same(native="time_in.in_layer", diffusers="time_text_embed.timestep_embedder.linear_1"),
        same(native="time_in.out_layer", diffusers="time_text_embed.timestep_embedder.linear_2"),
        same(native="vector_in.in_layer", diffusers="time_text_embed.text_embedder.linear_1"),
        same(native="vector_in.out_layer", diffusers="time_text_embed.text_embedder.linear_2"),
        same(native="guidance_in.in_layer", diffusers="time_text_embed.guidance_embedder.linear_1"),
        same(native="guidance_in.out_layer", diffusers="time_text_embed.guidance_embedder.linear_2"),
        same(native=_DOUBLE + "img_attn.norm.query_norm", diffusers=_BLOCK + "attn.norm_q", nunchaku=_BLOCK + "norm_q"),
        same(native=_DOUBLE + "img_attn.norm.key_norm", diffusers=_BLOCK + "attn.norm_k", nunchaku=_BLOCK + "norm_k"),
        same(native=_DOUBLE + "txt_attn.norm.query_norm", diffusers=_BLOCK + "attn.norm_added_q"),
        same(native=_DOUBLE + "txt_attn.norm.key_norm", diffusers=_BLOCK + "attn.norm_added_k"),
        same(native=_SINGLE + "norm.query_norm", diffusers=_SINGLE_BLOCK + "attn.norm_q"),
        same(native=_SINGLE + "norm.key_norm", diffusers=_SINGLE_BLOCK + "attn.norm_k"),
    ),
)
