"""Anima and Cosmos-Predict 2 and 2.5 (28 blocks of width 2048, 36 of 5120): NVIDIA's names, which ComfyUI and the
trainers keep, <-> diffusers'. Anima's ``llm_adapter`` is part of the transformer there, a ``text_conditioner`` of its
own in diffusers, with the same names inside.
"""

from __future__ import annotations

from .tables import Family, TextEncoder, Weights, same

_BLOCK, _DIFFUSERS_BLOCK = "blocks.{i}.", "transformer_blocks.{i}."
_ADAPTER, _CONDITIONER = "llm_adapter.", "text_conditioner."
_ADAPTER_BLOCK = "blocks.{i}."


def _attention(native: str, diffusers: str) -> tuple[Weights, ...]:
    return (
        same(native=native + "q_proj", diffusers=diffusers + "to_q"),
        same(native=native + "k_proj", diffusers=diffusers + "to_k"),
        same(native=native + "v_proj", diffusers=diffusers + "to_v"),
        same(native=native + "output_proj", diffusers=diffusers + "to_out.0"),
        same(native=native + "q_norm", diffusers=diffusers + "norm_q"),
        same(native=native + "k_norm", diffusers=diffusers + "norm_k"),
    )


def _modulation(native: str, diffusers: str) -> Weights:
    return same(native=native + ".{n:1|2}", diffusers=diffusers + ".linear_{n:1|2}")


def _adapter(path: str) -> Weights:
    return same(native=_ADAPTER + path, diffusers=_CONDITIONER + path)


FAMILY = Family(
    name="anima",
    title="Anima / Cosmos-Predict 2",
    text_encoders={"text_encoder": TextEncoder("language_model", "qwen3_06b.transformer.model")},
    base_models=("cosmos",),
    widths={"transformer_blocks.{i}.attn1.to_q": (2048, 5120), "transformer_blocks.{i}.attn2.to_k": (1024,)},
    weights=(
        *_attention(_BLOCK + "self_attn.", _DIFFUSERS_BLOCK + "attn1."),
        *_attention(_BLOCK + "cross_attn.", _DIFFUSERS_BLOCK + "attn2."),
        # Predict 2.5 attends to an image, too
        same(
            native=_BLOCK + "cross_attn.{m:q_img|k_img|v_img|q_img_norm|k_img_norm}",
            diffusers=_DIFFUSERS_BLOCK + "attn2.{m:q_img|k_img|v_img|q_img_norm|k_img_norm}",
        ),
        same(native=_BLOCK + "mlp.layer1", diffusers=_DIFFUSERS_BLOCK + "ff.net.0.proj"),
        same(native=_BLOCK + "mlp.layer2", diffusers=_DIFFUSERS_BLOCK + "ff.net.2"),
        _modulation(_BLOCK + "adaln_modulation_self_attn", _DIFFUSERS_BLOCK + "norm1"),
        _modulation(_BLOCK + "adaln_modulation_cross_attn", _DIFFUSERS_BLOCK + "norm2"),
        _modulation(_BLOCK + "adaln_modulation_mlp", _DIFFUSERS_BLOCK + "norm3"),
        _modulation("final_layer.adaln_modulation", "norm_out"),
        same(native="final_layer.linear", diffusers="proj_out"),
        same(native="x_embedder.proj.1", diffusers="patch_embed.proj"),
        same(native="t_embedder.1.linear_{n:1|2}", diffusers="time_embed.t_embedder.linear_{n:1|2}"),
        same(native="t_embedding_norm", diffusers="time_embed.norm"),
        same(native="{m:crossattn_proj|img_context_proj}.0", diffusers="{m:crossattn_proj|img_context_proj}.0"),
        _adapter(_ADAPTER_BLOCK + "{a:self_attn|cross_attn}.{m:q_proj|k_proj|v_proj|o_proj|q_norm|k_norm}"),
        _adapter(_ADAPTER_BLOCK + "{m:norm_self_attn|norm_cross_attn|norm_mlp|mlp.0|mlp.2}"),
        _adapter("{m:embed|in_proj|out_proj|norm}"),
    ),
)
