"""CLIP's text encoders: CLIP-L, OpenCLIP-H (Stable Diffusion 2) and OpenCLIP-G (Stable Diffusion XL).

``diffusers`` is what their pipelines have: transformers' names, below ``text_model`` or not, depending on class and
version. OpenCLIP's own (``native``, in checkpoints of Stability) have q, k and v in one parameter, ``in_proj_weight``
of torch's attention. OpenCLIP's projection is the transpose of transformers', so it has no line here.
"""

from __future__ import annotations

from .tables import Family, Naming, rows, same

_LAYER = "encoder.layers.{i}."
_NATIVE = "transformer.resblocks.{i}."

FAMILY = Family(
    name="clip",
    title="CLIP text encoder",
    components=("text_encoder", "text_encoder_2"),
    namings=(Naming("torch", in_models=False),),
    written={"kohya": "diffusers", "comfyui": "diffusers"},
    below={"text_model.": ("encoder.", "embeddings.", "final_layer_norm")},
    weights=(
        rows(
            "q k v",
            diffusers={f"{_LAYER}self_attn.{piece}_proj": piece for piece in "qkv"},
            native={_NATIVE + "attn.in_proj": "q k v"},
            torch={_NATIVE + "attn.in_proj_weight": "q k v", _NATIVE + "attn": "q k v"},
        ),
        same(
            diffusers=_LAYER + "self_attn.out_proj",
            native=_NATIVE + "attn.out_proj",
            torch=_NATIVE + "attn.base_layer.out_proj",
        ),
        same(diffusers=_LAYER + "mlp.fc1", native=_NATIVE + "mlp.c_fc"),
        same(diffusers=_LAYER + "mlp.fc2", native=_NATIVE + "mlp.c_proj"),
        same(diffusers=_LAYER + "layer_norm1", native=_NATIVE + "ln_1"),
        same(diffusers=_LAYER + "layer_norm2", native=_NATIVE + "ln_2"),
        same(diffusers="embeddings.token_embedding", native="token_embedding"),
        same(diffusers="embeddings.position_embedding", native="positional_embedding"),
        same(diffusers="final_layer_norm", native="ln_final"),
        same(diffusers="text_projection"),
    ),
)
