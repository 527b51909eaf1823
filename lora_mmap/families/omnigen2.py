"""OmniGen 2 (32 layers, width 2520; 21 query and 7 key heads) by the names of its checkpoint, which ComfyUI keeps, and
OmniGen 1 by diffusers' (its feed forward keeps the gate and the value in one matrix)."""

from __future__ import annotations

from .tables import Family, same

_BLOCK = "{b:layers|noise_refiner|ref_image_refiner|context_refiner}.{i}."
_LAYER = "layers.{i}."

FAMILY = Family(
    name="omnigen2",
    title="OmniGen 2",
    weights=(
        same(native=_BLOCK + "attn.{m:to_q|to_k|to_v|to_out.0|norm_q|norm_k}"),
        same(native=_BLOCK + "feed_forward.linear_{m:1|2|3}"),
        same(native=_BLOCK + "{m:norm1|norm1.linear|norm1.norm|norm2|ffn_norm1|ffn_norm2}"),
        same(native="{m:x_embedder|ref_image_patch_embedder|image_index_embedding}"),
        same(native="time_caption_embed.timestep_embedder.linear_{m:1|2}"),
        same(native="time_caption_embed.caption_embedder.{m:0|1}"),
        same(native="norm_out.linear_{m:1|2}"),
    ),
)

OMNIGEN1 = Family(
    name="omnigen",
    title="OmniGen",
    weights=(
        same(diffusers=_LAYER + "self_attn.{m:to_q|to_k|to_v|to_out.0}"),
        same(diffusers=_LAYER + "mlp.{m:gate_up_proj|down_proj}"),
        same(diffusers=_LAYER + "{m:input_layernorm|post_attention_layernorm}"),
        same(diffusers="patch_embedding.{m:output_image_proj|input_image_proj}"),
        same(diffusers="{t:time_token|t_embedder}.linear_{m:1|2}"),
        same(diffusers="{m:embed_tokens|norm|norm_out.linear|proj_out}"),
    ),
)
