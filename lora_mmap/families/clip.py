"""CLIP's text encoders: CLIP-L, OpenCLIP-H (Stable Diffusion 2) and OpenCLIP-G (Stable Diffusion XL).

``diffusers`` is what files of their pipelines say: transformers' names below ``text_model``. Some classes and versions
of transformers lack that level (``bare``). OpenCLIP's own (``native``, in checkpoints of Stability) have q, k and v in
one parameter, ``in_proj_weight`` of torch's attention; ``torch`` is what files call it that say the parameter's whole
name, or the attention's, as PEFT does. OpenCLIP's projection is the transpose of transformers', so it has no name here.
"""

from __future__ import annotations

from .tables import Family, Naming, Weights, rows, same

_LEVEL = "text_model."
_LAYER = "encoder.layers.{i}."
_NATIVE = "transformer.resblocks.{i}."


def _weight(path: str, native: str) -> Weights:
    return same(diffusers=_LEVEL + path, bare=path, native=native)


FAMILY = Family(
    name="clip",
    title="CLIP text encoder",
    components=("text_encoder", "text_encoder_2"),
    # A model with the level is known without it, too (levels.py), so no path has to lead to it.
    namings=(Naming("diffusers", in_models=False), Naming("torch", in_models=False)),
    written={"kohya": "diffusers", "comfyui": "diffusers"},
    weights=(
        rows(
            "q k v",
            diffusers={f"{_LEVEL}{_LAYER}self_attn.{piece}_proj": piece for piece in "qkv"},
            bare={f"{_LAYER}self_attn.{piece}_proj": piece for piece in "qkv"},
            native={_NATIVE + "attn.in_proj": "q k v"},
            torch={_NATIVE + "attn.in_proj_weight": "q k v", _NATIVE + "attn": "q k v"},
        ),
        same(
            diffusers=_LEVEL + _LAYER + "self_attn.out_proj",
            bare=_LAYER + "self_attn.out_proj",
            native=_NATIVE + "attn.out_proj",
            torch=_NATIVE + "attn.base_layer.out_proj",
        ),
        _weight(_LAYER + "mlp.fc1", _NATIVE + "mlp.c_fc"),
        _weight(_LAYER + "mlp.fc2", _NATIVE + "mlp.c_proj"),
        _weight(_LAYER + "layer_norm1", _NATIVE + "ln_1"),
        _weight(_LAYER + "layer_norm2", _NATIVE + "ln_2"),
        _weight("embeddings.token_embedding", "token_embedding"),
        _weight("embeddings.position_embedding", "positional_embedding"),
        _weight("final_layer_norm", "ln_final"),
        same(bare="text_projection"),
    ),
)
