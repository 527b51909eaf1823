"""T5 and UMT5, as transformers names them and everybody keeps: the text encoder of SD3, Flux.1, PixArt, Wan and others.

Version 1.1 and UMT5 gate the MLP (``wi_0``, ``wi_1``); the decoder is part of the whole model only.
"""

from __future__ import annotations

from .tables import Family, same

_LAYER = "{stack:encoder|decoder}.block.{i}.layer.{j}."

FAMILY = Family(
    name="t5",
    title="T5 text encoder",
    components=("text_encoder", "text_encoder_2", "text_encoder_3"),
    once=True,
    weights=(
        same(diffusers=_LAYER + "{attention:SelfAttention|EncDecAttention}.{m:q|k|v|o|relative_attention_bias}"),
        same(diffusers=_LAYER + "DenseReluDense.{m:wi|wi_0|wi_1|wo}"),
        same(diffusers=_LAYER + "layer_norm"),
        same(diffusers="{stack:encoder|decoder}.{m:embed_tokens|final_layer_norm}"),
        same(diffusers="shared"),
    ),
)
