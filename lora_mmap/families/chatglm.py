"""ChatGLM 3 under its authors' names: the text encoder of Kolors. q, k and v are one matrix, with two groups of k and v
for 32 heads."""

from __future__ import annotations

from .tables import Family, same

_LAYER = "encoder.layers.{i}."

FAMILY = Family(
    name="chatglm",
    title="ChatGLM text encoder",
    components=("text_encoder",),
    once=True,
    weights=(
        same(diffusers=_LAYER + "self_attention.{m:query_key_value|dense}"),
        same(diffusers=_LAYER + "mlp.{m:dense_h_to_4h|dense_4h_to_h}"),
        same(diffusers=_LAYER + "{m:input_layernorm|post_attention_layernorm}"),
        same(diffusers="{m:embedding.word_embeddings|encoder.final_layernorm|output_layer}"),
    ),
)
