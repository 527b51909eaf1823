"""BERT as transformers names it: the first text encoder of Hunyuan-DiT."""

from __future__ import annotations

from .tables import Family, same

_LAYER = "encoder.layer.{i}."

FAMILY = Family(
    name="bert",
    title="BERT text encoder",
    components=("text_encoder",),
    once=True,
    weights=(
        same(diffusers=_LAYER + "attention.self.{m:query|key|value}"),
        same(diffusers=_LAYER + "{m:attention.output|output}.{n:dense|LayerNorm}"),
        same(diffusers=_LAYER + "intermediate.dense"),
        same(diffusers="embeddings.{m:word_embeddings|position_embeddings|token_type_embeddings|LayerNorm}"),
        same(diffusers="pooler.dense"),
    ),
)
