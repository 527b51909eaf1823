"""HiDream-I1 (16 double and 32 single blocks, width 2560, four experts). diffusers and ComfyUI use the same names; what
ends in ``_t`` is the text's."""

from __future__ import annotations

from .tables import Family, same

_DOUBLE = "double_stream_blocks.{i}.block."
_EITHER = "{stream:double|single}_stream_blocks.{i}.block."

FAMILY = Family(
    name="hidream",
    title="HiDream-I1",
    weights=(
        same(diffusers=_EITHER + "adaLN_modulation.1"),
        same(diffusers=_EITHER + "attn1.{m:to_q|to_k|to_v|to_out|q_rms_norm|k_rms_norm}"),
        same(diffusers=_DOUBLE + "attn1.{m:to_q|to_k|to_v|to_out|q_rms_norm|k_rms_norm}_t"),
        same(diffusers=_EITHER + "ff_i.experts.{expert}.w{n:1|2|3}"),
        same(diffusers=_EITHER + "ff_i.{m:shared_experts.w1|shared_experts.w2|shared_experts.w3|gate}"),
        same(diffusers=_DOUBLE + "ff_t.w{n:1|2|3}"),
        same(diffusers="caption_projection.{i}.linear"),
        same(diffusers="{m:t_embedder.timestep_embedder|p_embedder.pooled_embedder}.linear_{n:1|2}"),
        same(diffusers="{m:x_embedder.proj|final_layer.linear|final_layer.adaLN_modulation.1}"),
    ),
)
