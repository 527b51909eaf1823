"""Z-Image (30 layers and two refiners of 2 layers, width 3840; Turbo, Base, Omni, TwinFlow, ControlNets).

ComfyUI keeps the published names: q, k and v in one matrix. diffusers has them apart and numbers its embedder and last
layer by patch size (``2-1``: 2 pixels, 1 frame). Nunchaku fuses q, k and v, and the two first matrices of the gated MLP
too, with the value (w3) before the gate (w1); in ComfyUI it calls them ``w13``. Anime-Z writes ``to.q`` and repeats q,
k, v and the output as ``qkv`` and ``out``.
"""

from __future__ import annotations

from .tables import Family, Naming, TextEncoder, Weights, rows, same


def _kept(path: str) -> Weights:
    """A weight of the same name in ComfyUI and in diffusers."""
    return same(native=path, diffusers=path)


def _layer(stack: str) -> tuple[Weights, ...]:
    """One kind of layers. All have the same names inside; some kinds are not modulated."""
    attention, mlp = f"{stack}.{{i}}.attention.", f"{stack}.{{i}}.feed_forward."
    return (
        rows(
            "q k v",
            native={attention + "qkv": "q k v"},
            diffusers={attention + "to_q": "q", attention + "to_k": "k", attention + "to_v": "v"},
            nunchaku={attention + "to_qkv": "q k v"},
            anime_z={attention + "to.q": "q", attention + "to.k": "k", attention + "to.v": "v"},
        ),
        same(native=attention + "out", diffusers=attention + "to_out.0", anime_z=attention + "to_out.0"),
        same(native=attention + "q_norm", diffusers=attention + "norm_q"),
        same(native=attention + "k_norm", diffusers=attention + "norm_k"),
        rows(
            "gate value",
            native={mlp + "w1": "gate", mlp + "w3": "value"},
            diffusers={mlp + "w1": "gate", mlp + "w3": "value"},
            nunchaku={mlp + "net.0.proj": "value gate"},
            nunchaku_comfyui={mlp + "w13": "value gate"},
        ),
        same(native=mlp + "w2", diffusers=mlp + "w2", nunchaku=mlp + "net.2"),
        _kept(f"{stack}.{{i}}.adaLN_modulation.0"),
        _kept(f"{stack}.{{i}}.{{m:attention_norm1|attention_norm2|ffn_norm1|ffn_norm2}}"),
    )


_ENDS = (
    same(native="x_embedder", diffusers="all_x_embedder.2-1"),
    same(native="final_layer.linear", diffusers="all_final_layer.2-1.linear"),
    same(native="final_layer.adaLN_modulation.1", diffusers="all_final_layer.2-1.adaLN_modulation.1"),
    same(native="final_layer.norm_final", diffusers="all_final_layer.2-1.norm_final"),
    _kept("{m:x_pad_token|cap_pad_token|siglip_pad_token}"),
    _kept("{m:cap_embedder|siglip_embedder}.{part:0|1}"),
    _kept("{m:t_embedder|t_embedder_2}.mlp.{part:0|2}"),
    same(native="norm_final"),
)

# Models may be built with embedders for more than one patch size, of which ComfyUI knows one.
_OTHER_PATCH_SIZES = (
    same(diffusers="all_x_embedder.{pixels}-{frames}"),
    same(diffusers="all_final_layer.{pixels}-{frames}.{m:linear|adaLN_modulation.1|norm_final}"),
)

_CONTROL_STACK = "{stack:control_layers|control_noise_refiner}"
_CONTROLNET = (
    *_layer(_CONTROL_STACK),
    _kept(_CONTROL_STACK + ".{i}.{m:before_proj|after_proj}"),
    _kept("control_all_x_embedder.{pixels}-{frames}"),
)

FAMILY = Family(
    name="z_image",
    title="Z-Image",
    namings=(Naming("anime_z", in_models=False),),
    written={"kohya": "diffusers", "comfyui": "diffusers"},
    text_encoders={"text_encoder": TextEncoder("language_model", "qwen3_4b.transformer.model")},
    weights=(
        *_layer("{stack:layers|noise_refiner|context_refiner}"),
        *_layer("siglip_refiner"),
        *_ENDS,
        *_OTHER_PATCH_SIZES,
        *_CONTROLNET,
    ),
    duplicates=(("anime_z", "native"),),
)
