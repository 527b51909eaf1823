"""GPT-2 and what shares its names (GPT-J, Falcon, BLOOM), as transformers has them. Where q, k and v are one matrix,
nobody takes it apart."""

from __future__ import annotations

from .tables import Family, same

_LAYER = "h.{i}."

FAMILY = Family(
    name="gpt2",
    title="GPT-2",
    components=("text_encoder",),
    weights=(
        same(diffusers=_LAYER + "attn.{m:c_attn|q_attn|c_proj|q_proj|k_proj|v_proj|out_proj}"),
        same(diffusers=_LAYER + "self_attention.{m:query_key_value|dense}"),
        same(diffusers=_LAYER + "mlp.{m:c_fc|c_proj|fc_in|fc_out|dense_h_to_4h|dense_4h_to_h}"),
        same(diffusers=_LAYER + "{m:ln_1|ln_2|ln_attn|ln_mlp|input_layernorm|post_attention_layernorm}"),
        same(diffusers="{m:wte|wpe|ln_f|word_embeddings|word_embeddings_layernorm}"),
    ),
)
