"""The image encoders of vision language models, as transformers names them: Qwen-VL's own, and CLIP, SigLIP or
Pixtral's as a ``vision_tower``, which had one more level before version 5."""

from __future__ import annotations

from .tables import Family, Weights, same

_BLOCK = "visual.blocks.{i}."
_PARTS = (
    "encoder.layers.{i}.self_attn.{m:q_proj|k_proj|v_proj|out_proj}",
    "encoder.layers.{i}.mlp.fc{n:1|2}",
    "encoder.layers.{i}.layer_norm{n:1|2}",
    "embeddings.{m:class_embedding|patch_embedding|position_embedding}",
    "{m:pre_layrnorm|post_layernorm|head.probe|head.layernorm}",
    "head.{m:attention.in_proj|attention.out_proj|mlp.fc1|mlp.fc2}",
)
_PIXTRAL = "vision_tower.transformer.layers.{i}."


def _tower(part: str) -> Weights:
    return same(diffusers="vision_tower." + part, transformers4="vision_tower.vision_model." + part)


FAMILY = Family(
    name="vision",
    title="Image encoder of a language model",
    components=("text_encoder", "text_encoder_2"),
    weights=(
        same(diffusers=_BLOCK + "attn.{m:qkv|proj}"),
        same(diffusers=_BLOCK + "mlp.{m:fc1|fc2|linear_fc1|linear_fc2|gate_proj|up_proj|down_proj}"),
        same(diffusers=_BLOCK + "norm{n:1|2}"),
        same(diffusers="visual.{m:patch_embed.proj|pos_embed|merger.ln_q|merger.mlp.0|merger.mlp.2}"),
        same(diffusers="visual.merger.{m:norm|linear_fc1|linear_fc2}"),
        same(diffusers="visual.deepstack_merger_list.{i}.{m:norm|linear_fc1|linear_fc2}"),
        same(diffusers=_PIXTRAL + "attention.{m:q_proj|k_proj|v_proj|o_proj}"),
        same(diffusers=_PIXTRAL + "{m:feed_forward.gate_proj|feed_forward.up_proj|feed_forward.down_proj}"),
        same(diffusers=_PIXTRAL + "{m:attention_norm|ffn_norm}"),
        same(diffusers="vision_tower.{m:patch_conv|ln_pre}"),
        *(_tower(part) for part in _PARTS),
        same(diffusers="multi_modal_projector.{m:linear_1|linear_2|mm_input_projection_weight|mm_soft_emb_norm}"),
        same(diffusers="multi_modal_projector.{m:norm|patch_merger.merging_layer}"),
    ),
)
